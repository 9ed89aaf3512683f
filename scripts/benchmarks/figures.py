"""What was measured, how it compares, and whether that is enough.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

#: The contestant that all others are yardsticks of.
SUBJECT = "natsfs"


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some numbers, and the least and the largest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of *values*, at least one."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio natsfs / *yardstick*, or on natsfs's own value where that is empty."""

    bound: float
    yardstick: str = ""
    at_least: bool = True

    def reached(self, value: float) -> bool:
        """Whether *value* keeps the bound."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that a workload measures, in *unit*."""

    name: str
    unit: str
    targets: tuple[Target, ...] = ()

    def target(self, yardstick: str) -> Target | None:
        """The target that *yardstick* sets; the absolute one for natsfs itself."""
        wanted = "" if yardstick == SUBJECT else yardstick
        return next((target for target in self.targets if target.yardstick == wanted), None)


@dataclass(frozen=True, slots=True)
class Samples:
    """What one contestant measured, a value a round; *problem* says why there are fewer."""

    contestant: str
    values: tuple[float, ...] = ()
    note: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one workload with all contestants, natsfs first."""

    workload: str
    figure: Figure
    samples: tuple[Samples, ...]

    def ratio(self, yardstick: Samples) -> Spread | None:
        """natsfs / *yardstick*, None where one of them has no value.

        Formed round by round: what the machine does besides then hits both sides of a ratio.
        """
        own = next((one.values for one in self.samples if one.contestant == SUBJECT), ())
        pairs = list(zip(own, yardstick.values, strict=False))
        if not pairs or yardstick.contestant == SUBJECT or not all(other for _, other in pairs):
            return None
        return Spread.of([mine / other for mine, other in pairs])

    def reached(self, yardstick: Samples) -> bool | None:
        """Whether natsfs keeps the target that *yardstick* sets; None where there is none.

        A target without a measurement counts as missed only when natsfs is what is missing.
        """
        target = self.figure.target(yardstick.contestant)
        if target is None:
            return None
        if yardstick.contestant == SUBJECT:
            return bool(yardstick.values) and target.reached(Spread.of(yardstick.values).median)
        ratio = self.ratio(yardstick)
        return None if ratio is None else target.reached(ratio.median)
