"""The context of the `nats` command that says which server is meant."""

from __future__ import annotations

from collections.abc import Mapping

from natsfs.cli.contexts import SECRETS, Context, load, selected
from natsfs.cli.doctor.findings import Finding, ok, warning


def context_findings(name: str | None, environ: Mapping[str, str]) -> list[Finding]:
    """What is to be said of the context *name*; nothing if there is none."""
    if name is None:
        return []
    context = load(name, environ)
    check = "context"
    if _is_open(context):
        return [
            warning(
                check,
                f"others may read {context.path}, which has a secret",
                f"`chmod 600 {context.path}`",
            )
        ]
    how = ", the selected one" if context.name == selected(environ) else ""
    return [ok(check, f"{context.name!r}{how}, of {context.path}")]


def _is_open(context: Context) -> bool:
    has_secret = any(context.get(field) for field in SECRETS) or "@" in context.get("url")
    return has_secret and bool(context.path.stat().st_mode & 0o077)
