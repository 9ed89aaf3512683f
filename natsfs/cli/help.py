"""`natsfs help`: what --help says of a command, and the pages that come with natsfs."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from importlib import resources

import click

from natsfs.cli.commands import Command
from natsfs.errors import UsageError

#: The pages, and what they are about.
TOPICS = {
    "semantics": "what a mount promises, with the ids by which the tests know it",
    "limits": "what it does not do",
    "connecting": "which server, and as whom: options, variables, credentials",
    "permissions": "what a user of the server needs to be allowed",
    "troubleshooting": "messages and errors, what they mean and what to do",
    "migration": "from rclone, s3fs, gcsfuse and `nats object`: flags and habits",
}

#: Columns that a line of prose may have; more are hard to read.
WIDEST = 100

#: What rich has black backgrounds for, which is hard to read on a white terminal.
_STYLES = {"markdown.code": "bold", "markdown.code_block": "bold", "markdown.table.border": "dim"}

_COMMENT = re.compile(r"^<!--.*?-->\n+", re.MULTILINE | re.DOTALL)


def _complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The commands and topics that begin so, for a shell."""
    root = ctx.find_root()
    assert isinstance(root.command, click.Group)
    names = [*root.command.list_commands(root), *TOPICS]
    return [name for name in names if name.startswith(incomplete)]


@click.command("help", cls=Command)
@click.argument("words", metavar="[COMMAND|TOPIC]", nargs=-1, shell_complete=_complete)
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command, or a page of the manual.

    On a terminal a page is shown by the pager, elsewhere as it is, in Markdown.
    """
    root = ctx.find_root()
    if not words:
        click.echo(f"{root.get_help()}\n\nTopics of natsfs help:\n{_topics()}")
    elif len(words) == 1 and words[0] in TOPICS:
        _show(page(words[0]))
    else:
        click.echo(_of_command(root, words))


def page(topic: str) -> str:
    """The page on *topic*, one of `TOPICS`, in Markdown."""
    text = (resources.files("natsfs") / "manual" / f"{topic}.md").read_text(encoding="utf-8")
    return _COMMENT.sub("", text)


def _topics() -> str:
    width = max(map(len, TOPICS))
    return "\n".join(f"  {topic:<{width}}  {about}" for topic, about in TOPICS.items())


def _of_command(root: click.Context, words: Sequence[str]) -> str:
    """The help of the command that *words* call.  Errors: `UsageError`."""
    ctx = root
    for word in words:
        group = ctx.command
        command = group.get_command(ctx, word) if isinstance(group, click.Group) else None
        if command is None:
            raise UsageError(f"no command or topic {' '.join(words)!r}; `natsfs help` lists them")
        ctx = click.Context(command, info_name=word, parent=ctx)
    return ctx.get_help()


def _show(text: str) -> None:
    if sys.stdout.isatty():
        click.echo_via_pager(_painted(text), color=True)
    else:
        click.echo(text, nl=False)


def _painted(text: str) -> str:
    """*text* for a terminal, with escapes."""
    # Only here: for 25 ms, and twice as much with Markdown, that nobody else needs.
    from rich.console import Console  # noqa: PLC0415
    from rich.markdown import Markdown  # noqa: PLC0415
    from rich.theme import Theme  # noqa: PLC0415

    width = min(Console().width, WIDEST)
    console = Console(file=io.StringIO(), force_terminal=True, width=width, theme=Theme(_STYLES))
    with console.capture() as captured:
        console.print(Markdown(text, hyperlinks=False, code_theme="bw"))
    return captured.get()
