"""The arrows of the architecture: who may import whom, and who may know what.

Read from the syntax trees, so that imports inside functions and behind conditions count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "natsfs"

#: What the calls of the Object Store API are made of.
BELOW_BASE = ("contention", "model", "primitives", "wire")

#: What each module may import of natsfs; the longest entry that a module lies in decides.  `x` is
#: the module x alone, `x.*` everything in it.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "config": {"errors"},
    "metrics": set(),
    "threads": {"headroom"},
    "headroom": set(),
    "store": set(),
    "store.model": {"errors"},
    "store.foreign_json": {"errors"},
    "store.usual": {"store.foreign_json"},
    "store.wire": {"errors", "store.model", "store.foreign_json", "store.usual"},
    "store.headers": {"errors", "store.model"},
    "store.protocol": {"errors", "store.headers", "store.model", "store.wire"},
    "store.streams": {"errors", "store.model", "store.wire"},
    "store.layout": {"errors", "store.model"},
    "store.buffers": set(),
    "store.contention": {"errors"},
    "store.primitives": {"errors", "progress", "store.model"},
    "store.base": {"errors", "progress", *(f"store.{name}" for name in BELOW_BASE)},
    "store.memory": {"errors", "progress", "store.*"},
    "store.advisories": {"store.model", "store.wire"},
    "store.memory_watch": {"errors", "store.model", "store.memory_stream", "store.wire"},
    "store.memory_draft": {
        *("errors", "store.model", "store.memory_stream", "store.primitives", "store.wire"),
    },
    "store.memory_stream": {"errors", "store.model", "store.wire"},
    "store.socks": {"errors", "config"},
    "store.session": {
        *("errors", "config", "store.session.*", "store.wire", "store.headers", "store.protocol"),
        "store.socks",
        "threads",
    },
    "store.link": {"errors", "config", "store.*"},
    "store.jetstream": {"errors", "config", "progress", "threads", "store.*"},
    "tree": {"errors", "config", "store.model", "tree.*"},
    "tree.names": {"errors"},
    "tree.inodes": {"errors"},
    "data": {
        *("errors", "config", "store.model", "store.base", "store.buffers", "store.primitives"),
        *("store.wire", "metrics", "threads"),
        "data.*",
    },
    "data.readahead": set(),
    "data.coverage": set(),
    "data.records": {"store.primitives"},
    "handles": {"errors", "config", "store.model", "store.base", "data.*", "tree.*"},
    "filesystem": {
        *("errors", "config", "handles", "metrics", "progress", "threads", "headroom"),
        "filesystem.*",
        *("store.model", "store.base", "store.primitives", "store.contention", "store.wire"),
        *("data.*", "tree.*"),
    },
    "buckets": {
        *("errors", "config", "progress", "filesystem.*", "buckets.*"),
        *("store.model", "store.base", "store.primitives", "store.wire", "tree.*"),
    },
    "operations": {
        *("errors", "config", "handles", "metrics", "headroom", "threads"),
        *("filesystem.*", "tree.*", "operations.*"),
    },
    "control": {"errors", "config", "control.*"},
    "daemon": {"errors"},
    "server": {"errors"},
    "supervisor": set(),
    "progress": {"store.model"},
    "mount": {
        *("", "errors", "config", "control.*", "server", "supervisor", "handles", "metrics"),
        *("progress", "threads", "headroom"),
        *("store.*", "tree.*", "data.*", "filesystem.*", "buckets.*", "operations.*", "mount.*"),
    },
    "upkeep": {
        *("errors", "filesystem.attributes", "filesystem.lifetimes", "store.*", "upkeep.*"),
        "progress",
    },
    "upkeep.disk": {"data.runs", "data.segments", "data.snapshots"},
    "cli": {
        *("", "errors", "config", "control.*", "daemon", "server", "mount", "cli.*", "upkeep.*"),
        "supervisor",
        *("store.*", "tree.names", "filesystem.attributes", "mount.recover"),
        *("data.ownership", "data.salvage"),
    },
    "": set(),
    "__main__": {"cli"},
}

#: Names of the outside world, and the only places that may use them.
RESERVED: dict[str, set[str]] = {
    "pyfuse3": {"operations", "mount"},
    "nats": {"store.session", "store.jetstream"},
    "asyncio": {"store.session"},
    "click": {"cli"},
    "rich": {"cli"},
    "platformdirs": {"cli"},
    "prometheus_client": {"metrics"},
    "msgspec": {"store.usual", "tree.packed", "tree.snapshot", "data.records", "data.runs"},
}

#: Modules that compute and never wait.
PURE = (
    *("errors", "config", "tree", "data.readahead", "data.small", "data.memory"),
    *("data.coverage", "data.records"),
    *("store.model", "store.base", "store.wire", "store.headers", "store.protocol"),
    *("store.layout", "store.buffers", "store.socks"),
    *("store.streams", "store.foreign_json", "store.usual", "store.primitives", "store.advisories"),
)
#: What waits, and so has no place in them.
WAITING = {"trio", "asyncio", "nats", "pyfuse3", "socket", "threading", "subprocess"}


def name_of(path: Path) -> str:
    """A module's name within natsfs; the package itself is the empty one."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(), str(MODULES[module]))


def imports(module: str) -> Iterator[str]:
    """The absolute names of everything that *module* imports."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: a relative import"
            yield from (_imported(str(node.module), alias.name) for alias in node.names)


def _imported(module: str, name: str) -> str:
    """`from a import b` imports a.b where that is a module of natsfs, and a otherwise."""
    inner = f"{module}.{name}".removeprefix("natsfs.")
    return f"{module}.{name}" if inner in MODULES else module


def own_imports(module: str) -> set[str]:
    """The modules of natsfs that *module* imports, by their names within natsfs."""
    found = {
        name.removeprefix("natsfs").removeprefix(".") for name in imports(module) if is_own(name)
    }
    return found - {module}


def is_own(name: str) -> bool:
    return name == "natsfs" or name.startswith("natsfs.")


def lies_in(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def allowed(module: str) -> set[str]:
    places = [place for place in ALLOWED if place and lies_in(module, place)]
    assert places or not module, f"{module} has no line in the table: say what it may import"
    return ALLOWED[max(places, key=len, default="")]


def is_allowed(imported: str, rules: set[str]) -> bool:
    return imported in rules or any(
        lies_in(imported, rule.removesuffix(".*")) for rule in rules if rule.endswith(".*")
    )


def uses(module: str, wanted: Callable[[ast.AST], bool]) -> list[int]:
    """The lines of *module* with a node that is *wanted*."""
    return [getattr(node, "lineno", 0) for node in ast.walk(tree_of(module)) if wanted(node)]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    """A module imports only what the table of layers allows it."""
    rules = allowed(module)
    wrong = {name for name in own_imports(module) if not is_allowed(name, rules)}
    assert not wrong, f"natsfs.{module} may not import {sorted(wrong)}"


def test_there_are_no_circles() -> None:
    """No module imports itself by way of others."""
    graph = {module: own_imports(module) & MODULES.keys() for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(" -> ".join(exc.args[1]))


@pytest.mark.parametrize(("name", "places"), RESERVED.items())
def test_libraries_stay_in_their_place(name: str, places: set[str]) -> None:
    """Each library of the outside world is known to one layer."""
    users = {module for module in MODULES if any(lies_in(found, name) for found in imports(module))}
    wrong = {module for module in users if not any(lies_in(module, place) for place in places)}
    assert not wrong, f"{name} is not for {sorted(wrong)}"


@pytest.mark.parametrize("module", [m for m in MODULES if any(lies_in(m, p) for p in PURE)])
def test_pure_modules_do_not_wait(module: str) -> None:
    """What computes imports nothing that waits."""
    wrong = {name for name in imports(module) if name.partition(".")[0] in WAITING}
    assert not wrong, f"natsfs.{module} may not import {sorted(wrong)}"


@pytest.mark.parametrize("module", [m for m in MODULES if not lies_in(m, "operations")])
def test_only_operations_speaks_errno_to_the_kernel(module: str) -> None:
    """`FUSEError` is raised and caught in operations alone."""

    def is_fuse_error(node: ast.AST) -> bool:
        names = (getattr(node, field, None) for field in ("id", "attr", "name"))
        return "FUSEError" in names

    assert uses(module, is_fuse_error) == []


@pytest.mark.parametrize("module", [m for m in MODULES if not lies_in(m, "cli")])
def test_only_the_command_line_reads_its_surroundings(module: str) -> None:
    """argv and the environment are read in cli alone; the entry point only hands on the status."""
    surroundings = {
        *(("os", name) for name in ("environ", "environb", "getenv", "getenvb")),
        *(("sys", name) for name in ("argv", "orig_argv")),
    }

    def reads(node: ast.AST) -> bool:
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                return (owner, name) in surroundings
            case ast.ImportFrom(module=owner, names=aliases):
                return any((owner, alias.name) in surroundings for alias in aliases)
        return False

    assert uses(module, reads) == []


def test_no_drawers() -> None:
    """No module is named for having no subject."""
    drawers = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert not [module for module in MODULES if drawers & set(module.split("."))]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_knows(module: str) -> None:
    """Every module but an empty package has a docstring."""
    tree = tree_of(module)
    assert not tree.body or ast.get_docstring(tree)


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_are_small(module: str) -> None:
    """A file has fewer than 400 lines, a function at most 60."""
    too_long = [
        node.name
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= 60
    ]
    assert not too_long
    assert len(MODULES[module].read_text().splitlines()) < 400
