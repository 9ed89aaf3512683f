"""Who competes in a workload of files: natsfs, then the peers that the command line wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from .bench import Bench
from .filesystems import PEERS, FileSystem, Natsfs
from .race import Contestant


def competitors(
    bench: Bench,
    measure: Callable[[FileSystem], Mapping[str, float]],
    fill: Callable[[FileSystem], None] = lambda _: None,
    *,
    extra: tuple[FileSystem, ...] = (),
    without: frozenset[str] = frozenset(),
) -> tuple[Contestant, ...]:
    """natsfs first, *extra*, then the peers, each with something served and *fill*ed."""
    wanted = bench.options.peers
    peers = [
        kind(bench)
        for kind in PEERS
        if kind.name not in without and (wanted is None or kind.name in wanted)
    ]
    systems: list[FileSystem] = [Natsfs(bench), *extra, *peers]
    return tuple(entry(fs, partial(measure, fs), partial(fill, fs)) for fs in systems)


def entry(
    fs: FileSystem,
    measure: Callable[[], Mapping[str, float]],
    fill: Callable[[], None] = lambda: None,
) -> Contestant:
    """A file system as a contestant."""

    def prepare() -> None:
        fs.serve()
        fill()

    return Contestant(fs.name, measure, prepare, fs.note)
