"""What mount(8) and umount(8) call their helpers with.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from natsfs.errors import UsageError

#: Options of mount(8) that take a value, which asks for nothing here: it enters a namespace itself
#: before it calls a helper, and who is called knows the type.
_WITH_VALUE = ("-t", "-N")

#: What the single letters of mount(8) say in natsfs's words; nothing where they ask for nothing:
#: there is no mtab (-n), and what `fstab` says of `rw` (-w) happens anyway.
_LETTERS = {"f": "--fake", "n": "", "r": "--read-only", "s": "--sloppy", "v": "--verbose", "w": ""}


def mount_arguments(argv: Sequence[str]) -> list[str]:
    """The arguments of `natsfs mount` that mean what mount(8) calls its helper with:
    `SPEC DIR [-sfnvrw] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`.

    Errors: `UsageError`.
    """
    places: list[str] = []
    found: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if argument in _WITH_VALUE:
            next(rest, None)
        elif argument == "-o":
            found.append(f"-o{next(rest, '')}")
        elif argument.startswith("-o") or argument in ("--help", "--version"):
            found.append(argument)
        elif argument.startswith("-") and len(argument) > 1:
            found += _letters(argument)
        else:
            places.append(argument)
    if len(places) != 2 and "--help" not in found:
        raise UsageError("mount.natsfs SOURCE DIRECTORY [-sfnvrw] [-o OPTIONS]: mount(8) calls it")
    return [*found, "--", *places] if places else found


def _letters(argument: str) -> list[str]:
    unknown = [letter for letter in argument[1:] if letter not in _LETTERS]
    if unknown:
        raise UsageError(f"mount.natsfs does not know {argument}; it takes -sfnvrw, -o, -t and -N")
    return [_LETTERS[letter] for letter in argument[1:] if _LETTERS[letter]]


def umount_arguments(argv: Sequence[str]) -> list[str]:
    """The arguments of `natsfs umount` that mean what umount(8) calls its helper with: it hands on
    its own options, of which `-n`, `-r` and `-v` ask for nothing here, and `-t` and `-N` take a
    value."""
    found: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if argument in _WITH_VALUE:
            next(rest, None)
        elif argument not in ("-n", "-r", "-v"):
            found.append(argument)
    return found
