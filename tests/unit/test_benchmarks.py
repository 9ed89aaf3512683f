"""What a benchmark makes of its measurements: turns, medians, ratios, targets, missing ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from benchmarks.figures import Figure, Row, Samples, Spread, Target
from benchmarks.race import Contest, Contestant, Failed, Race


def _row(figure: Figure, **values: tuple[float, ...]) -> Row:
    return Row("work", figure, tuple(Samples(name, found) for name, found in values.items()))


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    """A slow round that hits both sides does not change their ratio."""
    row = _row(Figure("speed", "MB/s"), natsfs=(80, 8, 90), other=(100, 10, 100))
    assert row.ratio(row.samples[1]) == Spread(0.8, 0.8, 0.9)


def test_a_target_is_reached_missed_or_open() -> None:
    """Open where the yardstick is missing; missed where natsfs itself is."""
    figure = Figure("speed", "MB/s", (Target(0.75, "other"), Target(100)))
    row = _row(figure, natsfs=(90,), other=(100,))
    assert [row.reached(samples) for samples in row.samples] == [False, True]
    row = _row(figure, natsfs=(90,), other=())
    assert row.reached(row.samples[1]) is None
    row = _row(figure, natsfs=(), other=(100,))
    assert row.reached(row.samples[0]) is False


def test_a_bound_from_above_is_reached_below_it() -> None:
    """`≤` and `≥` include the bound."""
    assert Target(2, at_least=False).reached(2)
    assert not Target(2, at_least=False).reached(2.1)
    assert Target(2).reached(2)


def _race(*contestants: Contestant) -> Race:
    return Race("work", Contest((Figure("speed", "MB/s"),), contestants), lambda _: None)


def _named(name: str, order: list[str]) -> Callable[[], Mapping[str, float]]:
    def measure() -> dict[str, float]:
        order.append(name)
        return {"speed": float(len(order))}

    return measure


def test_contestants_take_turns() -> None:
    """Every other round goes backwards."""
    order: list[str] = []
    race = _race(*(Contestant(name, _named(name, order)) for name in ("natsfs", "other")))
    race.run(3, keep_going=False)
    assert order == ["natsfs", "other", "other", "natsfs", "natsfs", "other"]
    assert [samples.values for samples in race.rows()[0].samples] == [(1, 4, 5), (2, 3, 6)]


def _fails() -> dict[str, float]:
    raise Failed("not installed")


def test_a_missing_peer_is_shown_with_the_reason() -> None:
    """It is tried once, and the others go on."""
    race = _race(Contestant("natsfs", lambda: {"speed": 1.0}), Contestant("other", _fails))
    race.run(2, keep_going=False)
    own, other = race.rows()[0].samples
    assert (own.values, other.values, other.problem) == ((1, 1), (), "not installed")


def test_the_run_ends_when_natsfs_fails_unless_told_otherwise() -> None:
    """With its reason in the table either way."""
    contestants = (Contestant("natsfs", _fails), Contestant("other", lambda: {"speed": 1.0}))
    race = _race(*contestants)
    with pytest.raises(Failed, match="not installed"):
        race.run(1, keep_going=False)
    assert race.rows()[0].samples[0].problem == "not installed"
    race = _race(*contestants)
    race.run(1, keep_going=True)
    assert race.rows()[0].samples[1].values == (1,)
