"""What a check has found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class State(Enum):
    """How good it is."""

    OK = "ok"
    #: It works, but not as well as it might, or not for everybody.
    WARNING = "warning"
    #: It does not work.
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how that is, and what to do where it is not good."""

    check: str
    state: State
    text: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "state": self.state.value}


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, State.OK, text)


def warning(check: str, text: str, advice: str) -> Finding:
    """It could be better."""
    return Finding(check, State.WARNING, text, advice)


def problem(check: str, text: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check, State.PROBLEM, text, advice)
