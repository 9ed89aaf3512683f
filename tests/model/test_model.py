"""Random operations on the mount and on a local directory, with a foreign writer between them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.comparison import Comparison
from tests.model.machine import PosixMachine
from tests.mount.mounting import Mount

pytestmark = [pytest.mark.mount, pytest.mark.server]

#: Operations of one run, which starts in an empty directory: long enough to get into trouble, short
#: enough to be read when it did.
STEPS = 50

#: The default mode has to say the same of the same source each time.
SHORT = settings(max_examples=8, derandomize=True)
LONG = settings(max_examples=20_000 // STEPS)


def explore(comparison: Comparison, how: settings) -> None:
    """Let hypothesis try operations in *comparison*, and make a failure short."""
    machine = type("Machine", (PosixMachine,), {"comparison": comparison})
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine,
        settings=settings(
            how,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=False,
            verbosity=Verbosity.quiet,
            suppress_health_check=quiet,
            phases=(Phase.generate, Phase.shrink),
        ),
    )


def check_elsewhere(comparison: Comparison, mount: Mount) -> None:
    """Everything that was made is there after a remount as well."""
    comparison.leave()
    mount.remount()
    comparison.check_all()
    comparison.leave()


@pytest.mark.timeout(300)
def test_some_operations(comparison: Comparison, mount: Mount) -> None:
    """W3: a few hundred operations have the same results on the mount as on a local directory."""
    explore(comparison, SHORT)
    assert comparison.performed >= 100
    check_elsewhere(comparison, mount)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_many_operations(comparison: Comparison, mount: Mount) -> None:
    """W3: 20,000 operations have the same results on the mount as on a local directory."""
    explore(comparison, LONG)
    assert comparison.performed >= 10_000
    check_elsewhere(comparison, mount)
