"""Lets atheris look for bytes that lead a reader to places where it has not been.

    python -m tests.faults.night TARGET SECONDS

The targets are those of `tests.faults.fuzzing`.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module

# It has no types, and only nights need it.
atheris = import_module("atheris")

with atheris.instrument_imports(include=["natsfs"]):
    from tests.faults.fuzzing import TARGETS


def main() -> None:
    """Fuzz a target for some seconds."""
    logging.disable(logging.CRITICAL)
    options = [f"-max_total_time={sys.argv[2]}", "-max_len=4096", "-rss_limit_mb=1024"]
    atheris.Setup([sys.argv[0], *options], TARGETS[sys.argv[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
