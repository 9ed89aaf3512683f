"""Contestants taking turns: every figure is measured beside its yardsticks, round by round.

What else the machine does changes within minutes.  So all contestants run once in each round, and
every other round goes backwards, so that nobody always runs after the same neighbour.
"""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from natsfs.errors import NatsfsError

from .figures import SUBJECT, Figure, Row, Samples

#: What a contestant may fail with and the others go on.
FAILURES = (OSError, NatsfsError, subprocess.SubprocessError)


class Failed(OSError):
    """A contestant cannot be started or did not do what was asked; the text says what."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One side of a comparison.

    *prepare* runs once, before the rounds; *measure* once a round, with the values of all figures
    that it has by their names.  Both may raise one of `FAILURES`.
    """

    name: str
    measure: Callable[[], Mapping[str, float]]
    prepare: Callable[[], None] = lambda: None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Contest:
    """Who competes in what; natsfs is the first contestant."""

    figures: tuple[Figure, ...]
    contestants: tuple[Contestant, ...]


@dataclass(slots=True)
class Race:
    """The rounds of one contest."""

    workload: str
    contest: Contest
    say: Callable[[str], None]
    _values: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    _problems: dict[str, str] = field(default_factory=dict)

    def run(self, rounds: int, *, keep_going: bool) -> None:
        """Let everybody run *rounds* times.  A contestant that fails is out and says why.

        Errors: what natsfs failed with, unless *keep_going*.
        """
        for contestant in self.contest.contestants:
            self.say(f"{contestant.name}: preparing")
            self._try(contestant, contestant.prepare, keep_going)
        for number in range(rounds):
            for contestant in self.contest.contestants[:: -1 if number % 2 else 1]:
                if contestant.name not in self._problems:
                    self.say(f"{contestant.name}: round {number + 1} of {rounds}")
                    self._try(contestant, partial(self._measure, contestant), keep_going)

    def rows(self) -> list[Row]:
        """What was measured so far, a row for each figure."""
        return [self._row(figure) for figure in self.contest.figures]

    def _try(self, contestant: Contestant, step: Callable[[], None], keep_going: bool) -> None:
        try:
            step()
        except FAILURES as error:
            self._problems[contestant.name] = _reason(error)
            self.say(f"{contestant.name}: {_reason(error)}")
            if contestant.name == SUBJECT and not keep_going:
                raise

    def _measure(self, contestant: Contestant) -> None:
        for figure, value in contestant.measure().items():
            self._values[contestant.name, figure].append(value)

    def _row(self, figure: Figure) -> Row:
        all_samples = (self._samples(one, figure) for one in self.contest.contestants)
        shown = tuple(one for one in all_samples if one.values or one.problem)
        return Row(self.workload, figure, shown)

    def _samples(self, contestant: Contestant, figure: Figure) -> Samples:
        values = tuple(self._values[contestant.name, figure.name])
        problem = self._problems.get(contestant.name, "")
        return Samples(contestant.name, values, contestant.note, problem)


def _reason(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, subprocess.CalledProcessError):
        lines += (error.stderr or b"").decode(errors="replace").splitlines()[-3:]
    return "; ".join(line.strip() for line in lines)
