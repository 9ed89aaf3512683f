"""Object names, paths, and the replacement characters between them."""

from __future__ import annotations

import time
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsfs.tree.names import (
    MAX_COMPONENT,
    bytes_of,
    decode_component,
    decorations,
    encode_component,
    is_canonical,
    split_name,
    text_of,
)

#: Little pieces that meet each other at every border of the three layers.
PIECES = ["‛", "‛", "．", ".", "／", "␀", "\0", "F", "C3", "A9", "41", "8", "é", "‛C3", "‛‛E2"]
RAW = [piece.encode() for piece in PIECES if piece != "\0"] + [b"\xc3", b"\xa9", b"\xe2", b"\xff"]

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/")),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
)
anything = st.one_of(
    st.binary(max_size=40), st.lists(st.sampled_from(RAW), max_size=12).map(b"".join)
)
kernel_names = anything.map(lambda raw: raw.replace(b"/", b"").replace(b"\0", b"")).filter(
    lambda raw: raw not in (b"", b".", b"..")
)


@given(kernel_names)
def test_created_name_comes_back(name: bytes) -> None:
    """N1: every name that a program may create maps to an object name that is shown as it."""
    text = decode_component(name)
    assert encode_component(text) == name
    assert is_canonical(text)
    assert "/" not in text


@given(texts)
def test_shown_name_is_legal(text: str) -> None:
    """N2: every component of an object name is shown as something that POSIX can spell."""
    shown = encode_component(text)
    assert shown not in (b"", b".", b"..")
    assert b"/" not in shown
    assert b"\0" not in shown


@given(texts, texts)
def test_canonical_names_do_not_meet(one: str, other: str) -> None:
    """N1: two different canonical components are shown differently."""
    if one != other and is_canonical(one) and is_canonical(other):
        assert encode_component(one) != encode_component(other)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/‛")))
def test_names_without_quotes_are_canonical(text: str) -> None:
    """N1: only names with the quoting character can fail to be canonical."""
    assert is_canonical(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("", "／"),
        (".", "．"),
        ("..", "．．"),
        ("...", "..."),
        ("．", "‛．"),
        ("‛．．", "‛‛．．"),
        ("／", "‛／"),
        ("a／b", "a／b"),
        ("a\0b", "a␀b"),
        ("␀", "‛␀"),
        ("‛\0", "‛‛␀"),
        ("‛␀", "‛‛‛␀"),
        ("‛", "‛"),
        ("a‛", "a‛"),
        ("‛41", "‛41"),
        ("‛c3", "‛c3"),
        ("‛‛C3", "‛C3"),
        ("Straße", "Straße"),
        ("e\u0301", "e\u0301"),
    ],
)
def test_replacement_table(text: str, shown: str) -> None:
    """N2: what POSIX cannot spell is replaced, a literal replacement is quoted, the rest stays."""
    assert encode_component(text) == shown.encode()
    assert decode_component(shown.encode()) == text


def test_invalid_byte_is_spelled() -> None:
    """N2: a byte that is not UTF-8 is ‛XX in the object name."""
    assert decode_component(b"caf\xe9") == "caf‛E9"
    assert encode_component("caf‛E9") == b"caf\xe9"
    assert decode_component("‛".encode() + b"\xe9") == "‛‛‛E9"


def test_spelled_utf8_is_not_canonical() -> None:
    """N1: an object name that spells the bytes of another one is told apart."""
    assert encode_component("‛C3‛A9") == "é".encode()
    assert not is_canonical("‛C3‛A9")
    assert is_canonical("é")


@given(anything)
def test_bytes_survive_as_text(raw: bytes) -> None:
    """K6: symlink targets and attribute values come back byte for byte."""
    text = text_of(raw)
    text.encode()
    assert bytes_of(text) == raw


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="‛")))
def test_readable_text_stays_readable(text: str) -> None:
    """K6: UTF-8 without quotes is stored as itself, dots, slashes and NUL included."""
    assert text_of(text.encode()) == text
    assert bytes_of(text) == text.encode()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a", ([], "a")),
        ("a/b/c", (["a", "b"], "c")),
        ("a//b", (["a", ""], "b")),
        ("/a", ([""], "a")),
        ("d/", (["d"], "")),
        ("a/./..", (["a", "."], "..")),
    ],
)
def test_split(name: str, parts: tuple[list[str], str]) -> None:
    """N1: slashes split an object name into directories and leaf; N5: a marker has no leaf."""
    assert split_name(name) == parts


@given(kernel_names.map(lambda name: name * 9), st.text(st.characters(codec="utf-8")))
def test_decorations_are_names(component: bytes, key: str) -> None:
    """N3, N4: other names are storable, all different, not the plain one, and stable."""
    names = list(islice(decorations(component, key), 120))
    assert len(set(names)) == len(names)
    assert component not in names
    assert all(0 < len(name) <= MAX_COMPONENT for name in names)
    assert names == list(islice(decorations(component, key), 120))


def test_decorations_of_a_short_name() -> None:
    """N3: a name that fits gets quotes behind it."""
    assert list(islice(decorations(b"a", "key"), 2)) == ["a‛".encode(), "a‛‛".encode()]


@given(st.text("aé漢😀", min_size=256), st.text("xy"))
def test_shortened_names_stay_utf8(text: str, key: str) -> None:
    """N4: a long name is cut between characters and told apart by its key."""
    name = next(decorations(text.encode(), key))
    prefix, _, digest = name.decode().partition("‛")
    assert text.startswith(prefix)
    assert len(name) > MAX_COMPONENT - 4
    assert len(digest) == 12
    assert name != next(decorations(text.encode(), key + "z"))


def test_hostile_quotes_cost_linear_time() -> None:
    """N2: a value of nothing but quotes is read in one pass."""
    quotes = ("‛" * 200_000).encode()
    began = time.process_time()
    assert bytes_of(text_of(quotes)) == quotes
    assert encode_component(decode_component(quotes)) == quotes
    assert time.process_time() - began < 2
