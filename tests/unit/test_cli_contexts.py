"""Contexts of the `nats` command: which one counts, what it says, what is wrong with it."""

from __future__ import annotations

import base64
import json
import os
import pwd
import stat
from pathlib import Path
from typing import Any

import click
import pytest

from natsfs.cli.connection import ConnectionOptions, server_config, server_of_mount
from natsfs.cli.contexts import complete_context, known
from natsfs.cli.doctor.context import context_findings
from natsfs.cli.doctor.findings import State
from natsfs.cli.source import Servers
from natsfs.config import DEFAULT_SERVER, Proxy, ServerConfig
from natsfs.control import server_status
from natsfs.errors import UsageError

SECRET = "pa55-f0r-nobody"


class Home:
    """A user's configuration, and what commands make of it."""

    def __init__(self, directory: Path) -> None:
        self.nats = directory / "config" / "nats"
        (self.nats / "context").mkdir(parents=True)
        self.environ = {"XDG_CONFIG_HOME": str(directory / "config"), "HOME": str(directory)}

    def add(self, name: str, **fields: Any) -> Path:
        """The context *name*."""
        return self.write(name, json.dumps(fields))

    def write(self, name: str, text: str) -> Path:
        """The context *name* with a file that says *text*."""
        path = self.nats / "context" / f"{name}.json"
        path.write_text(text)
        return path

    def select(self, name: str) -> None:
        """As `nats context select` does."""
        (self.nats / "context.txt").write_text(name)

    def config(
        self, *, named: Servers | None = None, environ: dict[str, str] | None = None, **options: Any
    ) -> ServerConfig:
        """The server that commands with *options* and *environ* use."""
        both = {**self.environ, **(environ or {})}
        return server_config(ConnectionOptions(**options), both, named or Servers())

    def refused(self, **options: Any) -> str:
        """The one line that they say instead."""
        with pytest.raises(UsageError) as caught:
            self.config(**options)
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home without contexts."""
    return Home(tmp_path)


# -- which one ------------------------------------------------------------------------------------


def test_which_context(home: Home) -> None:
    """E: --context counts before NATS_CONTEXT, and that before the selected one."""
    for name in ("option", "variable", "selected"):
        home.add(name, url=f"nats://{name}")
    assert home.config().urls == (DEFAULT_SERVER,)
    home.select("selected\n")
    assert home.config().urls == ("nats://selected:4222",)
    environ = {"NATS_CONTEXT": "variable"}
    assert home.config(environ=environ).urls == ("nats://variable:4222",)
    found = home.config(environ=environ, context="option")
    assert (found.urls, found.context) == (("nats://option:4222",), "option")
    assert home.config(no_context=True).urls == (DEFAULT_SERVER,)


def test_a_context_by_its_file(home: Home, tmp_path: Path) -> None:
    """E: what names a file that ends in .json is the file, as for the `nats` command."""
    path = tmp_path / "mine.json"
    path.write_text('{"url": "tls://mine"}')
    found = home.config(context=str(path))
    assert (found.urls, found.context) == (("tls://mine:4222",), str(path))


def test_the_home_of_nobody_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """E: without HOME and XDG_CONFIG_HOME, as under systemd, the list of users names the home."""
    entry = pwd.getpwuid(os.geteuid())
    changed = pwd.struct_passwd((*entry[:5], str(tmp_path), entry[6]))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: changed)
    directory = tmp_path / ".config" / "nats" / "context"
    directory.mkdir(parents=True)
    (directory / "c.json").write_text('{"url": "nats://c"}')
    assert server_config(ConnectionOptions(context="c"), {}).urls == ("nats://c:4222",)


def test_a_context_says_what_nothing_else_does(home: Home) -> None:
    """E: options, SOURCE and variables count before each field of a context."""
    home.add("c", url="nats://c", user="u", password=SECRET, jetstream_domain="hub")
    home.select("c")
    assert home.config(server="nats://s").urls == ("nats://s:4222",)
    assert home.config(environ={"NATS_URL": "nats://e"}).urls == ("nats://e:4222",)
    found = home.config(named=Servers(("nats://n:1",)))
    assert (found.urls, found.user, found.domain) == (("nats://n:1",), "u", "hub")
    assert home.config(js_domain="leaf").domain == "leaf"
    found = home.config(js_api_prefix="acme.API")
    assert (found.domain, found.api_prefix) == (None, "acme.API")


def test_logins_are_not_mixed(home: Home, tmp_path: Path) -> None:
    """E: a login of an option, a URL or a variable replaces that of the context as a whole."""
    home.add("c", user="u", password=SECRET)
    creds = tmp_path / "creds"
    found = home.config(context="c", creds=creds)
    assert (found.user, found.password, found.creds) == (None, None, creds)
    found = home.config(context="c", environ={"NATS_TOKEN": "t"})
    assert (found.user, found.token) == (None, "t")
    found = home.config(context="c", server="nats://t@h")
    assert (found.user, found.token) == (None, "t")


def test_embedded_needs_no_context(home: Home) -> None:
    """E: --embedded overlooks the selected context, and does not go with one that is named."""
    home.add("c", url="nats://c", jetstream_domain="hub", token=SECRET)
    home.select("c")
    found = home.config(embedded=True, environ={"NATS_URL": "nats://e"})
    assert (found.domain, found.token, found.context) == (None, None, None)
    assert "--embedded" in home.refused(embedded=True, context="c")
    assert "--js-domain" in home.refused(embedded=True, js_domain="d")


def test_a_mount_leads_back_to_its_context(home: Home) -> None:
    """E: commands that are given a directory in a mount use its context, not the selected one."""
    home.add("mine", url="nats://h", token=SECRET, jetstream_domain="hub", inbox_prefix="in")
    home.add("other", url="nats://o", token="other", jetstream_domain="other")
    mounted = home.config(context="mine")
    told = server_status(mounted)
    assert SECRET not in json.dumps(told)
    home.select("other")
    assert server_of_mount(ConnectionOptions(), home.environ, told) == mounted
    assert server_of_mount(ConnectionOptions(no_context=True), home.environ, told).token is None
    # Mounts that an older natsfs made tell neither.
    old = server_status(ServerConfig())
    del old["subjects"]
    found = server_of_mount(ConnectionOptions(), home.environ, old)
    assert (found.context, found.domain) == (None, None)


# -- what it says ---------------------------------------------------------------------------------


def test_all_fields(home: Home, tmp_path: Path) -> None:
    """E: every field that says how to connect is used; the others say nothing to natsfs."""
    for name in ("ca", "cert", "key", "creds"):
        (tmp_path / name).touch()
    home.add(
        "c",
        description="all of it",
        url="nats://a, nats://b:1",
        creds="~/creds",
        token=SECRET,
        ca="$HOME/ca",
        cert=f"file://{tmp_path}/cert",
        key="${HOME}/key",
        tls_first=True,
        jetstream_api_prefix="acme.JS.",
        jetstream_event_prefix="acme.EVENT",
        inbox_prefix="_ME",
        socks_proxy=f"socks5://u:{SECRET}@p:1",
        color_scheme="blue",
        windows_cert_store="",
        windows_ca_certs_match=None,
    )
    assert home.config(context="c") == ServerConfig(
        urls=("nats://a:4222", "nats://b:1"),
        creds=tmp_path / "creds",
        token=SECRET,
        tls_ca=tmp_path / "ca",
        tls_cert=tmp_path / "cert",
        tls_key=tmp_path / "key",
        tls_first=True,
        api_prefix="acme.JS",
        event_prefix="acme.EVENT",
        inbox_prefix="_ME",
        proxy=Proxy("p", 1, "u", SECRET),
        context="c",
    )
    assert SECRET not in repr(home.config(context="c"))


def test_relative_paths(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E: relative paths begin where the command is called, as for the `nats` command."""
    (tmp_path / "creds").touch()
    home.add("c", creds="creds")
    monkeypatch.chdir(tmp_path)
    assert home.config(context="c").creds == tmp_path / "creds"
    monkeypatch.chdir("/")
    assert "creds names /creds, which is no file" in home.refused(context="c")


def test_names_as_go_reads_them(home: Home) -> None:
    """E: Go overlooks the case of names, takes null for nothing said, and knows what it knows."""
    home.write("c", '{"URL": "nats://c", "User": null, "tls_first": null, "more": [1]}')
    found = home.config(context="c")
    assert (found.urls, found.user, found.tls_first) == (("nats://c:4222",), None, False)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"user": "u", "password": "p", "creds": "no"}, {"user": "u", "password": "p"}),
        ({"user": "u"}, {"user": "u", "password": ""}),
        ({"token": "t"}, {"token": "t"}),
        ({"url": "nats://u:p@h", "token": "t"}, {"user": "u", "password": "p"}),
        ({"user_jwt": "j"}, {"bearer": "j"}),
        ({"user_seed": "s"}, {}),
    ],
)
def test_logins(home: Home, fields: dict[str, str], expected: dict[str, str]) -> None:
    """E: of several logins in one context one counts, in the order of the `nats` command."""
    home.add("c", **fields)
    found = home.config(context="c")
    names = ("user", "password", "token", "creds", "nkey", "bearer", "creds_text")
    assert {name: getattr(found, name) for name in names if getattr(found, name) is not None} == (
        expected
    )


def test_jwt_and_seed(home: Home) -> None:
    """E: a JWT and a seed, in a context or in NATS_JWT and NATS_SEED, are a credentials file."""
    home.add("c", user_jwt="the-jwt", user_seed=SECRET)
    text = home.config(context="c").creds_text or ""
    assert "the-jwt" in text.splitlines()
    assert SECRET in text.splitlines()
    environ = {"NATS_JWT": "the-jwt", "NATS_SEED": SECRET}
    assert home.config(environ=environ).creds_text == text


def test_references(home: Home, tmp_path: Path) -> None:
    """E: secrets may be named instead of written: a variable, a file, base64."""
    (tmp_path / "token").write_text(f"{SECRET}\n")
    data = base64.b64encode(SECRET.encode()).decode()
    for reference in ("env://MY_TOKEN", "file://~/token", f"data:;base64,{data}"):
        home.add("c", token=reference)
        assert home.config(context="c", environ={"MY_TOKEN": SECRET}).token == SECRET
    home.add("c", creds="env://MY_CREDS")
    found = home.config(context="c", environ={"MY_CREDS": SECRET})
    assert (found.creds, found.creds_text) == (None, SECRET)


def program(directory: Path, name: str, script: str) -> None:
    """A program that a context needs."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_programs(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E: `nsc` and `op` are asked as the `nats` command asks them."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "creds").write_text(SECRET)
    profile = {"user_creds": str(tmp_path / "creds"), "operator": {"service": ["nats://op"]}}
    asked = "test \"$*\" = 'generate profile o/a/u'"
    program(tmp_path, "nsc", f"{asked} && echo '{json.dumps(profile)}'")
    home.add("c", nsc="nsc://o/a/u")
    found = home.config(context="c")
    assert (found.urls, found.creds) == (("nats://op:4222",), tmp_path / "creds")
    home.add("c", creds="nsc://o/a/u")
    assert home.config(context="c").creds_text == SECRET
    program(tmp_path, "op", f"test \"$*\" = 'read op://vault/item' && echo {SECRET}")
    home.add("c", user="u", password="op://vault/item")
    assert home.config(context="c").password == SECRET


def test_programs_that_fail(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E: a program that is missing, fails, or says nonsense is named with what it complained of,
    and never with what it printed."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    home.add("c", nsc="nsc://o/a/u")
    assert "there is no program 'nsc'" in home.refused(context="c")
    program(tmp_path, "nsc", f"echo {SECRET}; echo no such user >&2; exit 3")
    assert home.refused(context="c").endswith("`nsc generate` failed: no such user")
    program(tmp_path, "nsc", f"echo {SECRET}")
    assert "no JSON" in home.refused(context="c")


def test_no_proxy(home: Home) -> None:
    """E: `none` does without the proxy of a context, as for the `nats` command."""
    home.add("c", socks_proxy="socks5://[::1]")
    assert home.config(context="c").proxy == Proxy("::1", 1080)
    assert home.config(context="c", socks_proxy="none").proxy is None
    environ = {"NATS_SOCKS_PROXY": "socks5h://e:9"}
    assert home.config(context="c", environ=environ).proxy == Proxy("e", 9)


# -- what is wrong with it ------------------------------------------------------------------------


def test_unknown_contexts(home: Home) -> None:
    """E: a context that there is not is refused with those there are, and a guess."""
    told = home.refused(context="prod")
    assert told == f"there is no context 'prod'; there is none in {home.nats}/context"
    home.add("production")
    home.add("dev")
    told = home.refused(context="productoin")
    assert told.endswith("; did you mean 'production'? there are dev, production")
    home.select("gone")
    told = home.refused()
    assert told.startswith("the selected context 'gone' does not exist; there are dev, production")
    assert "--no-context" in told
    assert home.config(context="dev").context == "dev"


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "/etc/passwd", "x\0"])
def test_no_names(home: Home, name: str) -> None:
    """E: what cannot be a context's name names no file either."""
    assert "cannot be the name of a context" in home.refused(context=name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        (f'{{"password": "{SECRET}",}}', "is no JSON"),
        (f'{{"password": "{SECRET}"', "line 1"),
        (f'["{SECRET}"]', "is no JSON object"),
        ("[" * 100_000, "is no JSON object"),
        ('{"url": 5}', "url in"),
        (f'{{"password": ["{SECRET}"]}}', "password in"),
        ('{"tls_first": "yes"}', "tls_first in"),
        ('{"token": "a\\u0000b"}', "token in"),
        ('{"url": "http://h"}', "'http'"),
        (f'{{"url": "nats://u:{SECRET}@h:99999"}}', "99999"),
        ('{"creds": "/no/such/file"}', "creds names /no/such/file, which is no file"),
        ('{"creds": "vault://x"}', "creds"),
        ('{"ca": "env://CA"}', "ca has to be the path of a file"),
        ('{"cert": "/etc/passwd"}', "both cert and key"),
        ('{"token": "env://NOT_SET"}', "token: env://NOT_SET"),
        ('{"token": "data:;base64,!"}', "token"),
        ('{"token": "file:///no/such"}', "token"),
        ('{"jetstream_domain": "a.b"}', "is no JetStream domain"),
        ('{"jetstream_domain": "a", "jetstream_api_prefix": "b"}', "exclude each other"),
        ('{"inbox_prefix": "in.*"}', "is no inbox prefix"),
        ('{"socks_proxy": "http://p"}', "is no SOCKS proxy"),
        ('{"windows_cert_store": "user"}', "Windows"),
    ],
)
def test_bad_contexts(home: Home, text: str, said: str) -> None:
    """E: what is wrong with a context is said in one line, without its secrets."""
    home.write("c", text)
    assert said in home.refused(context="c")


def test_files_that_are_none(home: Home) -> None:
    """E: directories and pipes are no contexts, and nobody waits for them."""
    (home.nats / "context" / "d.json").mkdir()
    os.mkfifo(home.nats / "context" / "f.json")
    for name in ("d", "f"):
        assert "there is no context" in home.refused(context=name)


def test_completion(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """E: shells complete the names of contexts; files that cannot be one are none."""
    for name in ("prod", "prod.eu", "dev"):
        home.add(name)
    home.write("empty", "")
    (home.nats / "context" / "note.txt").touch()
    assert known(home.environ) == ["dev", "prod", "prod.eu"]
    monkeypatch.setenv("XDG_CONFIG_HOME", home.environ["XDG_CONFIG_HOME"])
    context = click.Context(click.Command("ls"))
    assert complete_context(context, click.Option(["--x"]), "pr") == ["prod", "prod.eu"]
    assert known({"XDG_CONFIG_HOME": "/no/such"}) == []


def test_the_doctor(home: Home) -> None:
    """E: the doctor names the context, and warns where others may read its secrets."""
    path = home.add("c", token=SECRET)
    path.chmod(0o600)
    home.select("c")
    (found,) = context_findings("c", home.environ)
    assert (found.state, found.text) == (State.OK, f"'c', the selected one, of {path}")
    path.chmod(0o644)
    (found,) = context_findings("c", home.environ)
    assert (found.state, found.advice) == (State.WARNING, f"`chmod 600 {path}`")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    home.add("c", url="nats://h")
    (found,) = context_findings("c", home.environ)
    assert found.state is State.OK
    assert context_findings(None, home.environ) == []
