"""Random operations on the mount and on a local directory, with a foreign writer between them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from tests.model.comparison import Comparison
from tests.model.machine import PosixMachine, TurningMachine
from tests.model.shortening import shortened
from tests.model.sides import Difference, Side
from tests.mount.mounting import Mount, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.server]

#: Operations of one run, which starts in an empty directory: long enough to get into trouble, short
#: enough to be read when it did.
STEPS = 50

#: Operations of the long tests.
MANY = 20_000


def explore(
    comparison: Comparison, machine: type[PosixMachine], *, runs: int, derandomize: bool
) -> None:
    """Let hypothesis try operations in *comparison*, and make a failure short."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    try:
        run_state_machine_as_test(
            type("Machine", (machine,), {"comparison": comparison}),
            settings=settings(
                max_examples=runs,
                derandomize=derandomize,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                print_blob=False,
                report_multiple_bugs=False,
                verbosity=Verbosity.quiet,
                suppress_health_check=quiet,
                phases=(Phase.generate,),
            ),
        )
    except (Difference, Flaky) as error:
        found = comparison.difference
        assert found is not None
        raise shortened(found, comparison.replay) from error


def explore_long(comparison: Comparison, machine: type[PosixMachine]) -> None:
    """The same, until `MANY` operations were compared; each round draws others."""
    while comparison.performed < MANY:
        # What hypothesis draws first is as small as can be, so a round has to be more than that.
        runs = max(10, (MANY - comparison.performed) // STEPS)
        explore(comparison, machine, runs=runs, derandomize=False)


def check_elsewhere(comparison: Comparison, mount: Mount, other: Mount) -> None:
    """Everything that was made is there on another directory at the same time, and on the same one
    after a remount; also the times are the same, to the nanosecond."""
    with closing(Side(other.directory, other.abort)) as beside:
        comparison.join(beside)
        comparison.check_all()
        times = comparison.times(0)
        wait_until(
            lambda: comparison.times(1) == times, "the times of directories everywhere", timeout=120
        )
        comparison.part()
    comparison.leave()
    mount.remount()
    comparison.check_all()
    assert comparison.times(0) == times
    comparison.leave()


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("options", [("--writeback",)])
@pytest.mark.parametrize("runs", [8, pytest.param(200, marks=pytest.mark.nightly)])
def test_written_back(comparison: Comparison, mount: Mount, runs: int) -> None:
    """W8, W3: with writeback operations have the same results, and so has a look after the next
    mount, when all is stored."""
    explore(comparison, PosixMachine, runs=runs, derandomize=runs < 10)
    comparison.leave()
    mount.remount()
    comparison.check_all()
    comparison.leave()


@pytest.mark.timeout(300)
def test_some_operations(
    comparison: Comparison, mount: Mount, model_mounter: Callable[[], Mount]
) -> None:
    """W3: a few hundred operations have the same results on the mount as on a local directory."""
    # The default mode has to say the same of the same source each time.
    explore(comparison, PosixMachine, runs=8, derandomize=True)
    assert comparison.performed >= 100
    check_elsewhere(comparison, mount, model_mounter())


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_many_operations(
    comparison: Comparison, mount: Mount, model_mounter: Callable[[], Mount]
) -> None:
    """W3: 20,000 operations have the same results on the mount as on a local directory."""
    explore_long(comparison, PosixMachine)
    assert comparison.performed >= 20_000
    check_elsewhere(comparison, mount, model_mounter())


@pytest.mark.timeout(300)
def test_some_operations_in_turn(wide_comparison: Comparison, mount: Mount) -> None:
    """A1: operations on two mounts in turn have the same results as on one local directory."""
    explore(wide_comparison, TurningMachine, runs=4, derandomize=True)
    assert wide_comparison.performed >= 50
    wide_comparison.leave()


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_many_operations_in_turn(wide_comparison: Comparison) -> None:
    """A1: 20,000 operations on two mounts in turn have the same results as on one directory."""
    explore_long(wide_comparison, TurningMachine)
    assert wide_comparison.performed >= 20_000
    wide_comparison.leave()
