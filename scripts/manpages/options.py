"""What the commands of natsfs say of themselves, as roff."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from manpages.roff import bold, escaped, filled, italic, literal, paragraph, tagged
from natsfs.cli import natsfs
from natsfs.cli.commands import ALIASES, FOR_OTHERS, KERNEL_WORDS, MountCommand, store_options
from natsfs.cli.examples import examples_of

#: What is to be replaced, in a synopsis; the rest is typed or says how often.
_WORD = re.compile(r"([A-Z_]+)")


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command with the words that call it, in the order in which natsfs lists them."""
    yield from _below(natsfs, root())


def root() -> click.Context:
    """That of natsfs itself.  A command remembers its help option as it was first asked for."""
    return click.Context(natsfs, info_name="natsfs", **natsfs.context_settings)


def _below(
    group: click.Group, ctx: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=ctx)
        yield inner.command_path, command, inner
        if isinstance(command, click.Group):
            yield from _below(command, inner)


def visible(command: click.Command) -> list[click.Option]:
    """The options of *command* that its --help shows."""
    return [one for one in command.params if isinstance(one, click.Option) and not one.hidden]


def shared() -> list[click.Option]:
    """The options that all commands with a server have."""
    return visible(click.command()(store_options(lambda: None)))


def common() -> set[str]:
    """The names of the options that are told of in one place for all commands."""
    return {*(str(one.name) for one in shared()), "verbose"}


def synopses() -> str:
    """One line for each command."""
    lines = []
    for path, command, ctx in commands():
        if not isinstance(command, click.Group):
            lines.append(_synopsis(path, command, ctx))
    return "".join(f".br\n{line}\n" for line in lines).removeprefix(".br\n")


def _synopsis(path: str, command: click.Command, ctx: click.Context) -> str:
    pieces = [_replaceable(piece) for piece in command.collect_usage_pieces(ctx)[1:]]
    return " ".join([bold(path), r"[\fIOPTIONS\fR]", *pieces])


def _replaceable(piece: str) -> str:
    parts = _WORD.split(piece)
    return "".join(
        italic(part) if n % 2 else escaped(part, typed=True) for n, part in enumerate(parts)
    )


def command_sections() -> str:
    """A section for each command: how it is called, what it does, its options."""
    return "".join(_section(path, command, ctx) for path, command, ctx in commands())


def _section(path: str, command: click.Command, ctx: click.Context) -> str:
    group = isinstance(command, click.Group)
    title = f".SS {bold(path)}\n"
    if not group:
        title += f".PP\n{filled(_synopsis(path, command, ctx))}\n"
    own = [one for one in visible(command) if one.name not in common()]
    table = "".join(_option(one, ctx) for one in own)
    text, end = _prose(command.help or ""), _prose(command.epilog or "")
    return f"{title}{text}{table}{end}{_more(command)}{_examples(path)}"


def _examples(path: str) -> str:
    lines = examples_of(path)
    if not lines:
        return ""
    return f".PP\n{filled(paragraph('For example:'))}\n{literal(list(lines))}"


def _more(command: click.Command) -> str:
    """Where the options are that all commands of a kind have."""
    names = {one.name for one in visible(command)}
    if not {one.name for one in shared()} <= names:
        return ""
    return f".PP\n{filled(paragraph('And the connection options, see below.'))}\n"


def _prose(text: str) -> str:
    """Paragraphs as click has them; one that begins with backspace is kept line by line."""
    found = []
    for block in re.split(r"\n\s*\n", text.strip()) if text.strip() else []:
        if block.startswith("\b"):
            found.append(literal(block.removeprefix("\b").strip("\n").split("\n")))
        else:
            found.append(f".PP\n{filled(paragraph(block))}\n")
    return "".join(found)


def _option(option: click.Option, ctx: click.Context) -> str:
    """An option as its --help has it: `-f, --foreground`, `--uid UID`."""
    flags = ", ".join(map(bold, sorted(option.opts, key=len)))
    value = "" if option.is_flag else _value(option, ctx)
    space = "" if not value or value.startswith("[=") else " "
    return tagged(f"{flags}{space}{value}", paragraph(option.help or "-"))


def _value(option: click.Option, ctx: click.Context) -> str:
    shown = option.make_metavar(ctx)
    if isinstance(option.type, click.Choice):
        return "|".join(bold(str(choice)) for choice in option.type.choices)
    return _replaceable(shown)


def shared_options() -> str:
    """The options that all commands with a server have, and --verbose, which all have."""
    mount, ctx = _mount()
    (verbose,) = (one for one in visible(mount) if one.name == "verbose")
    return "".join(_option(one, ctx) for one in (*shared(), verbose))


def mount_options() -> str:
    """The options of `natsfs mount` by the names that -o has for them."""
    command, ctx = _mount()
    other = {name: alias for alias, name in ALIASES.items()}
    return "".join(
        _mount_option(name, other.get(name), option, ctx)
        for name, option in command.long_options().items()
    )


def _mount() -> tuple[MountCommand, click.Context]:
    ((command, ctx),) = ((one, ctx) for path, one, ctx in commands() if path == "natsfs mount")
    assert isinstance(command, MountCommand)
    return command, ctx


def _mount_option(name: str, alias: str | None, option: click.Option, ctx: click.Context) -> str:
    names = ", ".join(bold(each) for each in (alias, name) if each)
    value = "" if option.is_flag else _value(option, ctx)
    equals = "" if not value or value.startswith("[") else "="
    return tagged(f"{names}{equals}{value}", paragraph(option.help or "-"))


def kernel_words() -> str:
    """The words that the kernel gets."""
    return _enumerated(KERNEL_WORDS)


def other_words() -> str:
    """The words that ask natsfs for nothing."""
    return _enumerated(FOR_OTHERS)


def _enumerated(words: frozenset[str]) -> str:
    return f".PP\n{filled(', '.join(map(bold, sorted(words))))}.\n"
