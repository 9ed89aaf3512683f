"""`natsfs fsck`: can every object of a bucket be read in full?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from natsfs.cli.commands import Command, store_options
from natsfs.cli.connection import take
from natsfs.cli.output import print_json, printable
from natsfs.cli.progress import bars
from natsfs.cli.quantities import shown_size
from natsfs.cli.stores import with_manager
from natsfs.cli.target import target_of
from natsfs.store.base import ObjectStoreManager
from natsfs.upkeep.checking import QUARANTINE, Checker, Problem, Stages, Verdict

#: The exit status of fsck(8) when errors are left.
PROBLEMS = 4


@click.command(cls=Command)
@click.argument("source")
@click.option("--quick", is_flag=True, help="Only count chunks; do not read them")
@click.option("--repair", is_flag=True, help=f"Rename damaged objects into {QUARANTINE}")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@store_options
def fsck(source: str, quick: bool, repair: bool, as_json: bool, **options: Any) -> int:
    """Check the objects of SOURCE (a bucket, BUCKET/PREFIX, or a directory in a mount): whether all
    chunks are there, and whether sizes and digests are right.

    Reads everything once, unless --quick is given.  Never deletes anything.  The exit status is 4
    if something is wrong.
    """
    embedded: Path | None = options["embedded"]
    target = target_of(source, take(options))

    with bars() as stages:
        told = Stages(
            stages.stage("counting"),
            stages.stage("listing"),
            stages.stage("comparing"),
            stages.stage("checking", in_bytes=True),
            stages.stage("moving"),
        )

        async def check(manager: ObjectStoreManager) -> Verdict:
            store = await manager.bind(target.bucket)
            return await Checker(store, target.covers, told, data=not quick).run(repair=repair)

        verdict = with_manager(check, target.server, embedded)
    if as_json:
        print_json(asdict(verdict))
    else:
        _print(verdict, quick)
    return PROBLEMS if verdict.problems else 0


def _print(verdict: Verdict, quick: bool) -> None:
    for problem in verdict.problems:
        click.echo(_line(problem))
    bad = len(verdict.problems)
    wrong = f"{bad} problem{'' if bad == 1 else 's'}" if bad else "nothing is wrong"
    read = "" if quick else f", {shown_size(verdict.size)} read"
    click.echo(f"{verdict.objects} objects checked{read}: {wrong}")
    if verdict.unowned:
        click.echo(
            f"{verdict.unowned} versions belong to no object: being written now, or left over; "
            "`natsfs gc` tells them apart"
        )


def _line(problem: Problem) -> str:
    line = f"{printable(problem.name)}: {printable(problem.text)}"
    return f"{line}; moved to {printable(problem.moved_to)}" if problem.moved_to else line
