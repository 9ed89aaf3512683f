"""Links: texts for native links, native links for texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from natsfs.filesystem.attributes import SYMLINK_KEY
from natsfs.filesystem.links import native_link, path_of, shown_target
from natsfs.store.model import Link, ObjectInfo
from natsfs.tree.namespace import Namespace
from natsfs.tree.nodes import Directory

ROOT = PurePosixPath("/mnt/a b")


@pytest.fixture
def namespace() -> Namespace:
    """One of each kind."""
    tree = Namespace()
    metas = [
        ObjectInfo("f", "b", "f", size=1),
        ObjectInfo("d/g", "b", "d/g", size=1),
        ObjectInfo("d/e/h", "b", "d/e/h"),
        ObjectInfo("link", "b", "link", link=Link("b", "f")),
        ObjectInfo("text", "b", "text", metadata={"mode": "0120777", SYMLINK_KEY: "f"}),
        ObjectInfo("fifo", "b", "fifo", metadata={"mode": "0010644"}),
        ObjectInfo("claims", "b", "claims", size=1, metadata={"mode": "0010644"}),
        ObjectInfo("odd", "b", "odd", metadata={"mode": "what"}),
        ObjectInfo("both", "b", "both", size=1),
        ObjectInfo("both/x", "b", "both/x", size=1),
        ObjectInfo("..", "b", "..", size=1),
    ]
    for revision, info in enumerate(metas, 1):
        tree.apply(replace(info, revision=revision))
    return tree


def directory(namespace: Namespace, path: str) -> Directory:
    """The directory of a path."""
    node = namespace.root
    for part in filter(None, path.split("/")):
        child = node.children[part.encode()]
        assert isinstance(child, Directory)
        node = child
    return node


@pytest.mark.parametrize(
    ("where", "link", "text"),
    [
        ("", Link("b", "f"), "f"),
        ("", Link("b", "d/g"), "d/g"),
        ("d", Link("b", "f"), "../f"),
        ("d", Link("b", "d/g"), "g"),
        ("d/e", Link("b", "d/g"), "../g"),
        ("d/e", Link("b", "none/of/these"), "../../none/of/these"),
        ("", Link("b", "both"), "both‛"),
        ("", Link("b", "both/x"), "both/x"),
        ("", Link("b", ".."), "．．"),
        ("", Link("b", "unknown/../x"), "unknown/．．/x"),
        ("", Link("b", "d"), "d"),
        ("", Link("b"), "."),
        ("d/e", Link("b"), "../.."),
        ("", Link("other"), "../other"),
        ("d", Link("other"), "../../other"),
        ("d", Link("other", "x//y"), "../../other/x/／/y"),
    ],
)
def test_shown_targets(namespace: Namespace, where: str, link: Link, text: str) -> None:
    """K2, K3: a native link is shown with the relative path to what it names."""
    found = shown_target(namespace, "b", directory(namespace, where), link)
    assert found == text.encode()


@pytest.mark.parametrize(
    ("where", "text", "link"),
    [
        ("", "f", Link("b", "f")),
        ("", "./f", Link("b", "f")),
        ("", "d//g", Link("b", "d/g")),
        ("d", "../f", Link("b", "f")),
        ("d", "e/../g", Link("b", "d/g")),
        ("", "/mnt/a b/f", Link("b", "f")),
        ("d", "/mnt/a b/d/e/../../f", Link("b", "f")),
        ("", "claims", Link("b", "claims")),
        ("", "odd", Link("b", "odd")),
        ("", "both‛", Link("b", "both")),
        ("", "．．", Link("b", "..")),
        ("", ".", Link("b")),
        ("d", "..", Link("b")),
        ("", "/mnt/a b", Link("b")),
        ("", "/mnt/a b/", Link("b")),
        ("", "none", None),
        ("", "d", None),
        ("", "both", None),
        ("", "f/x", None),
        ("", "link", None),
        ("", "text", None),
        ("", "fifo", None),
        ("", "..", None),
        ("d", "../../f", None),
        ("", "../a b/f", None),
        ("", "/etc/passwd", None),
        ("", "/mnt/a bc/f", None),
        ("", "/mnt/a b/../f", None),
        ("", "/", None),
    ],
)
def test_native_links(namespace: Namespace, where: str, text: str, link: Link | None) -> None:
    """K4, K5: a text that leads, by its letters, to a plain object or the bucket is native."""
    found = native_link(namespace, "b", ROOT, directory(namespace, where), text.encode())
    assert found == link


def test_native_links_read_back(namespace: Namespace) -> None:
    """K4: following the shown text of a native link leads to the same native link."""
    for where in ("", "d", "d/e"):
        here = directory(namespace, where)
        for name in ("f", "d/g", "both", "..", "claims"):
            text = shown_target(namespace, "b", here, Link("b", name))
            assert native_link(namespace, "b", ROOT, here, text) == Link("b", name)


def test_path_of(namespace: Namespace) -> None:
    """K2: a path is what the tree shows, from the top."""
    assert path_of(directory(namespace, "d/e")) == [b"d", b"e"]
    assert path_of(namespace.root) == []
