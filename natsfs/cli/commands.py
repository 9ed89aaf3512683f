"""What click is taught for all commands: `--verbose`, `--embedded` without a value, `-o`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import click

from natsfs.cli.connection import connection_options
from natsfs.cli.examples import examples_of
from natsfs.cli.places import server_directory

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: Words of mount(8) that libfuse hands to the kernel as they are.
KERNEL_WORDS = frozenset(
    {
        *("async", "dev", "dirsync", "exec", "noatime", "nodev"),
        *("nodiratime", "noexec", "nosuid", "suid", "sync"),
    }
)

#: Words of mount(8) that have another name here.
ALIASES = {"ro": "read_only", "nonempty": "allow_non_empty"}

#: Words that are for mount(8), systemd and fstab(5), or ask for what happens anyway.
FOR_OTHERS = frozenset(
    {
        *("rw", "defaults", "auto", "noauto", "user", "users", "nouser", "nousers", "owner"),
        *("noowner", "group", "nogroup", "nofail", "_netdev", "relatime", "silent", "loud"),
    }
)

#: How such words begin that carry something.
_NOTES = ("x-", "X-", "comment=")

#: Long options that are no mount options.
_NO_WORDS = ("options", "foreground", "fake", "sloppy", "as_spelled", None)

#: Characters: more than any sentence has.
_WHOLE = 1000

#: In front of an option whose own name means something else to mount(8): it takes `user=` and
#: `context=` for its own.
_OWN = "nats_"


@dataclass
class Session:
    """What `main` must know of a command after it failed."""

    verbose: bool = False


class Group(click.Group):
    """Commands whose list says what each is for in a whole sentence, in as many lines as it takes;
    `-h` is for help, as everywhere."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **kwargs)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(_WHOLE))
                    for name, command in commands.items()
                    if command is not None
                ]
            )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        like = get_close_matches(args[0], self.list_commands(ctx), 1)
        if like and self.get_command(ctx, args[0]) is None:
            raise click.UsageError(
                f"No such command {args[0]!r}; perhaps you mean {like[0]!r}", ctx
            )
        return super().resolve_command(ctx, args)


class Command(click.Command):
    """A command with `--verbose`, whose `--embedded` takes a value after `=` only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["-v", "--verbose"],
                is_flag=True,
                expose_value=False,
                callback=_note_verbose,
                help="Log more; show where an unexpected error came from",
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _spelled_out(args))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if examples := examples_of(ctx.command_path):
            with formatter.section("Examples"):
                for line in examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class MountCommand(Command):
    """A command whose `-o NAME[=VALUE],…` says the same as its long options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = _spelled_out(args)
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        ctx.meta["sloppy"] = bool(given.get("sloppy"))
        kernel_words, flags = self._split(ctx, given.get("options", ()))
        ctx.meta["kernel_words"] = kernel_words
        return super().parse_args(ctx, flags + args)

    def _split(
        self, ctx: click.Context, groups: Iterable[str]
    ) -> tuple[tuple[str, ...], list[str]]:
        """The words for the kernel, and the others as long options."""
        kernel_words, flags = [], []
        for word in (word for group in groups for word in group.split(",") if word):
            if word in KERNEL_WORDS:
                kernel_words.append(word)
            elif not (word in FOR_OTHERS or word.startswith(_NOTES)):
                flags.append(self._flag(ctx, word))
        return tuple(kernel_words), [flag for flag in flags if flag]

    def _flag(self, ctx: click.Context, word: str) -> str:
        """*word* as a long option, empty if it is to be overlooked.  Errors: `click.UsageError`."""
        name, equals, value = word.partition("=")
        if name == "remount":
            raise click.UsageError(
                "natsfs cannot remount; unmount the directory, and mount it", ctx
            )
        name = ALIASES.get(name, name.removeprefix(_OWN))
        option = self.long_options().get(name)
        if option is None or "-" in name:
            if ctx.meta["sloppy"]:
                return ""
            raise click.UsageError(self._unknown(word.partition("=")[0]), ctx)
        if option.is_flag:
            if equals:
                raise click.UsageError(f"the mount option {name!r} takes no value", ctx)
            return _long(name)
        if not equals and name != "embedded":
            raise click.UsageError(f"the mount option {name!r} needs a value: {name}=…", ctx)
        return f"{_long(name)}={value}"

    def _unknown(self, name: str) -> str:
        known = {*self.long_options(), *ALIASES, *KERNEL_WORDS, *FOR_OTHERS}
        like = get_close_matches(name.removeprefix(_OWN), known, 1)
        hint = f"; perhaps you mean {like[0]!r}" if like else ""
        return f"unknown mount option {name!r}{hint}"

    def long_options(self) -> dict[str, click.Option]:
        """The options that `-o` has, by the names that it has for them."""
        return {
            flag.removeprefix("--").replace("-", "_"): option
            for option in self.params
            if isinstance(option, click.Option) and option.name not in _NO_WORDS
            for flag in option.opts
            if flag.startswith("--")
        }


def _long(name: str) -> str:
    return "--" + name.replace("_", "-")


def _spelled_out(args: list[str]) -> list[str]:
    """*args* with an empty value for a bare `--embedded`, so that it takes no argument for one."""
    return ["--embedded=" if argument == "--embedded" else argument for argument in args]


def _note_verbose(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and isinstance(ctx.obj, Session):
        ctx.obj.verbose = True


def _embedded(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Path | None:
    if value is None:
        return None
    return Path(value).expanduser().absolute() if value else server_directory().absolute()


def embedded_option(command: _Function) -> _Function:
    """Add `--embedded[=STORE_DIR]`, which becomes the directory or None."""
    return click.option(
        "--embedded",
        metavar="[=STORE_DIR]",
        callback=_embedded,
        help="Use a private nats-server with its store in STORE_DIR  [XDG data directory]",
    )(command)


def store_options(command: _Function) -> _Function:
    """Add what every command that talks to a server takes."""
    return connection_options(embedded_option(command))
