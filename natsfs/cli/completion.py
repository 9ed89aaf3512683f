"""`natsfs completion`: what a shell reads to complete commands, options and mount points.

Buckets are not completed: a key that is pressed must not wait for a network.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from natsfs.cli.commands import Command

#: The variable by which the shell's function asks `natsfs` for completions; click makes it of the
#: program's name.
VARIABLE = "_NATSFS_COMPLETE"

#: How each shell is told for good.
_INSTALL = {
    "bash": "natsfs completion bash \\\n  > ~/.local/share/bash-completion/completions/natsfs",
    "zsh": "natsfs completion zsh > ~/.zfunc/_natsfs",
    "fish": "natsfs completion fish > ~/.config/fish/completions/natsfs.fish",
}

_EPILOG = "\b\n" + "\n".join(f"{shell}: {line}" for shell, line in _INSTALL.items())


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("shell", type=click.Choice(list(_INSTALL)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the lines that let SHELL complete commands, options, mount points and files of natsfs.

    Buckets are not completed, as that would ask the server at the press of a key.
    """
    maker = get_completion_class(shell)
    assert maker is not None
    click.echo(maker(ctx.find_root().command, {}, "natsfs", VARIABLE).source())
