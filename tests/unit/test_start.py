"""What a process of natsfs does not do before its work: it takes longer to import than to mount."""

from __future__ import annotations

import subprocess
import sys


def told_by(program: str) -> list[str]:
    """What a process of its own prints that runs *program*."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_what_is_not_imported() -> None:
    """E: a mount that nobody looks at does not load what draws on a terminal, or for Prometheus."""
    program = (
        "import sys, natsfs.cli.mount, natsfs.mount;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = told_by(program)
    assert "pyfuse3" in loaded
    assert not {"rich", "prometheus_client"}.intersection(loaded)


def test_garbage_is_collected_after_a_command_is_loaded() -> None:
    """E: Python's collector rests while a command is loaded, and not while it works."""
    program = (
        "import gc, sys, natsfs.cli;"
        "sys.argv = ['natsfs', '--version'];"
        "natsfs.cli.main();"
        "print(gc.isenabled(), gc.get_freeze_count() > 0);"
        "sys.argv = ['natsfs', 'completion', '--help'];"
        "natsfs.cli.main();"
        "print(gc.isenabled(), gc.get_freeze_count() > 10_000)"
    )
    words = told_by(program)
    assert words[2:4] == ["False", "False"]
    assert words[-2:] == ["True", "True"]


def test_another_process_keeps_its_collector() -> None:
    """E: a program that calls a command itself has its garbage collected as before."""
    program = (
        "import gc, natsfs.cli;"
        "natsfs.cli.main(['completion', '--help']);"
        "print(gc.isenabled(), gc.get_freeze_count())"
    )
    assert told_by(program)[-2:] == ["True", "0"]
