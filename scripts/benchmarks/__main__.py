"""The command line: which workloads, how large, how often, and where the figures go."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from .bench import Options, surroundings
from .catalogue import WORKLOADS, described
from .figures import Row
from .filesystems import PEERS
from .interrupts import end_in_order
from .race import FAILURES, Race
from .report import save, show
from .scratch import Scratch

#: Bytes that the largest workload has on the disk at once: four NATS clients, five peers with their
#: caches and a payload, of 1 GiB each, and as many of 4 GiB with --large.
_ROOM = 24 << 30
_LARGE_FACTOR = 3
_QUICK_ROOM = 4 << 30


class _Names(click.ParamType[frozenset[str]]):
    """A list of names, comma-separated."""

    name = "name[,name]"

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[str]:
        names = frozenset(filter(None, str(value).split(",")))
        if unknown := names - set(self._known):
            known = ", ".join(self._known)
            self.fail(f"no such name: {', '.join(sorted(unknown))}; there are {known}", param, ctx)
        return names


@click.command()
@click.option("--only", type=_Names(list(WORKLOADS)), help="These workloads only.")
@click.option("--list", "listing", is_flag=True, help="List the workloads.")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Rounds.")
@click.option("--quick", is_flag=True, help="Sizes and numbers divided by 16.")
@click.option("--large", is_flag=True, help="Also 1,000,000 objects and a 4 GiB file.")
@click.option(
    "--peers", type=_Names([kind.name for kind in PEERS]), help="These peers only; '' for none."
)
@click.option("--keep-going", is_flag=True, help="Go on when natsfs fails.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write all figures there.")
@click.option(
    "--dir",
    "parent",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where to keep files meanwhile; a local disk.  [default: TMPDIR]",
)
def main(
    only: frozenset[str] | None,
    listing: bool,
    target: Path | None,
    parent: Path | None,
    **options: object,
) -> None:
    """Measure natsfs beside its yardsticks.  Exit status 1 if natsfs could not be measured."""
    if listing:
        for name, workload in WORKLOADS.items():
            click.echo(f"{name:12}{described(workload)}")
        return
    end_in_order()
    wanted = Options(**options)  # type: ignore[arg-type]  # click gives what Options has
    rows: list[Row] = []
    problem = ""
    try:
        with Scratch(parent) as scratch:
            _check_room(scratch, wanted)
            for name in [name for name in WORKLOADS if only is None or name in only]:
                _run(name, wanted, scratch, rows)
    except FAILURES as error:
        problem = f"natsfs failed: {error}"
    except KeyboardInterrupt:
        problem = "interrupted"
    _report(rows, wanted, target)
    if problem:
        raise click.ClickException(problem)


def _run(name: str, options: Options, scratch: Scratch, rows: list[Row]) -> None:
    """Add the rows of one workload.  Errors: what natsfs failed with."""
    with scratch.within(name) as own, surroundings(options, own) as bench:
        race = Race(name, WORKLOADS[name](bench), lambda text: _say(f"{name}: {text}"))
        try:
            race.run(options.runs, keep_going=options.keep_going)
        finally:
            rows += race.rows()


def _report(rows: Sequence[Row], options: Options, target: Path | None) -> None:
    """Show what there is, after a failure too."""
    wide = Console(width=None if sys.stdout.isatty() else 140)
    show(rows, wide)
    if target is not None:
        save(target, rows, {**asdict(options), "peers": sorted(options.peers or ())})


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _check_room(scratch: Scratch, options: Options) -> None:
    """Errors: `click.ClickException` when the disk could become full."""
    full = _ROOM * _LARGE_FACTOR if options.large else _ROOM
    needed = _QUICK_ROOM if options.quick else full
    if scratch.free() < needed:
        raise click.ClickException(
            f"{scratch.root} has {scratch.free() >> 30} GiB free, but up to {needed >> 30} GiB "
            "are needed; name another directory with --dir, or try --quick"
        )


if __name__ == "__main__":
    main(prog_name="scripts/bench")
