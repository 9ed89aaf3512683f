"""The options of `natsfs mount` become a `MountConfig`; quantities are read and written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

from natsfs.cli import contexts
from natsfs.cli.mount import mount, mount_config, places
from natsfs.cli.quantities import Address, Duration, Octal, Size, shown_duration, shown_size
from natsfs.config import ConflictPolicy, MountConfig
from natsfs.errors import UsageError


def config(*args: str, environ: dict[str, str] | None = None) -> MountConfig:
    """The configuration that `natsfs mount ARGS` asks for."""
    with mount.make_context("mount", list(args)) as ctx:
        options: dict[str, Any] = dict(ctx.params)
        given = options.pop("source"), options.pop("directory")
        source, directory = places(*given, all_buckets=options["all_buckets"])
        return mount_config(source, directory, options, ctx.meta["kernel_words"], environ or {})


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(contexts, "home_directory", lambda _: tmp_path)


def test_defaults(tmp_path: Path) -> None:
    """A bucket and a directory are enough; the rest is the defaults of `config`."""
    found = config("demo", "/mnt")
    assert (found.bucket, found.directory) == ("demo", Path("/mnt"))
    assert found.source == "nats://127.0.0.1:4222/demo"
    assert found.cache.directory == tmp_path / "cache" / "natsfs"
    assert (found.purge_delay, found.server.timeout) == (10.0, 60.0)
    assert found.embedded is None
    assert {found.read_only, found.allow_other, found.create} == {False}


def test_long_options() -> None:
    """Every long option reaches its place."""
    found = config(
        *("demo", "/mnt", "--create", "--read-only", "--allow-other", "--uid=1", "--gid=2"),
        *("--umask=077", "--file-mode=640", "--dir-mode=0750", "--cache-dir=/c"),
        *("--cache-size=1G", "--timeout=5s", "--purge-delay=1m", "--server=nats://h"),
    )
    assert (found.create, found.read_only, found.allow_other) == (True, True, True)
    tree = found.tree
    assert (tree.uid, tree.gid, tree.umask) == (1, 2, 0o077)
    assert (tree.file_mode, tree.dir_mode) == (0o640, 0o750)
    assert (found.cache.directory, found.cache.max_bytes) == (Path("/c"), 1024**3)
    assert (found.server.timeout, found.purge_delay) == (5.0, 60.0)
    assert found.server.urls == ("nats://h:4222",)


@pytest.mark.parametrize("policy", list(ConflictPolicy))
def test_conflict(policy: ConflictPolicy) -> None:
    """A4: what to do about conflicts is said by a long option or by `-o`; the last commit wins."""
    for words in (["--conflict", policy.value], ["-o", f"conflict={policy.value}"]):
        assert config("demo", "/mnt", *words).conflict.policy is policy
    assert config("demo", "/mnt").conflict.policy is ConflictPolicy.LAST
    with pytest.raises(click.BadParameter, match=r"last.*keep.*fail"):
        config("demo", "/mnt", "--conflict=first")


def test_mount_options_say_the_same() -> None:
    """`-o` knows the long options by their names with `_`, in any number of groups."""
    long = config("demo", "/mnt", "--read-only", "--uid=1", "--cache-size=1M", "--umask=0")
    short = config("demo", "/mnt", "-o", "ro,uid=1", "-ocache_size=1M,,umask=0,rw")
    assert short == long


def test_long_options_win_over_mount_options() -> None:
    """What is said both ways is taken from the long option."""
    assert config("demo", "/mnt", "--uid", "2", "-o", "uid=1").tree.uid == 2


def test_words_for_the_kernel() -> None:
    """Words that the kernel understands are handed on."""
    assert config("demo", "/mnt", "-o", "noatime,nosuid").kernel_options == ("noatime", "nosuid")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("bogus", "unknown mount option 'bogus'"),
        ("password=secret", "unknown mount option 'password'"),
        ("read-only", "unknown mount option 'read-only'"),
        ("foreground", "unknown mount option 'foreground'"),
        ("chache_size=1G", "'chache_size'; perhaps you mean 'cache_size'"),
        ("noatme", "'noatme'; perhaps you mean 'noatime'"),
        ("read_only=1", "takes no value"),
        ("uid", "needs a value"),
        ("uid=x", "uid"),
        ("umask=9", "octal"),
    ],
)
def test_wrong_mount_options(words: str, said: str) -> None:
    """A mount option that is unknown or wrong is named; its value is not."""
    with pytest.raises(click.UsageError) as caught:
        config("demo", "/mnt", "-o", words)
    assert said in caught.value.format_message()
    assert "secret" not in caught.value.format_message()


def test_embedded(tmp_path: Path) -> None:
    """`--embedded` alone uses the XDG data directory, `--embedded=DIR` another one."""
    place = tmp_path / "data" / "natsfs" / "server"
    assert config("--embedded", "demo", "/mnt").embedded == place
    assert config("demo", "/mnt", "-o", "embedded").embedded == place
    found = config("demo", "/mnt", "--embedded=/store")
    assert (found.embedded, found.source) == (Path("/store"), "embedded:demo")


@pytest.mark.parametrize("more", [["nats://h/demo", "/mnt"], ["demo", "/mnt", "--server=nats://h"]])
def test_embedded_and_another_server(more: list[str]) -> None:
    """The embedded server and another one exclude each other."""
    with pytest.raises(UsageError, match="--embedded"):
        config("--embedded", *more)


def test_the_source_shown_has_no_credentials() -> None:
    """The source for /proc/mounts leads to the bucket and hides how to get in."""
    found = config("nats://u:secret@a:1,b:2/demo", "/mnt")
    assert found.source == "nats://a:1,b:2/demo"
    assert "secret" not in repr(found)
    assert found.server.password == "secret"


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("1k", 1024), ("64M", 2**26), ("1.5GiB", 3 * 2**29), ("7 B", 7)],
)
def test_sizes(text: str, size: int) -> None:
    """Sizes take units that are powers of 1024."""
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1X", "1 2"])
def test_wrong_sizes(text: str) -> None:
    """What is no size is refused with an example."""
    with pytest.raises(click.BadParameter, match="64M"):
        Size().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1h30m", 5400), ("250ms", 0.25), ("1.5d", 129600), ("2w", 1209600)],
)
def test_durations(text: str, seconds: float) -> None:
    """Durations take units and sums of them; seconds need none."""
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "1y", "1h x"])
def test_wrong_durations(text: str) -> None:
    """What is no duration is refused with an example."""
    with pytest.raises(click.BadParameter, match="1h30m"):
        Duration().convert(text, None, None)


def test_modes() -> None:
    """Modes are octal with or without a leading 0."""
    assert [Octal().convert(text, None, None) for text in ("022", "755", "0o644")] == [18, 493, 420]


def test_shown_quantities() -> None:
    """Sizes and durations are shown in units that people can compare."""
    sizes = [0, 1023, 1536, 150 * 1024**2, 3 * 1024**4, -1]
    shown = ["0 B", "1023 B", "1.5 KiB", "150 MiB", "3.0 TiB", "unlimited"]
    assert [shown_size(size) for size in sizes] == shown
    durations = [None, 0.25, 59, 3600, 90061]
    assert [shown_duration(d) for d in durations] == ["never", "250ms", "59s", "1h", "1d1h"]


@pytest.mark.parametrize(
    ("args", "urls", "source"),
    [
        (("nats://h", "/mnt"), ("nats://h:4222",), "nats://h:4222/"),
        (("nats://h:4333/", "/mnt"), ("nats://h:4333",), "nats://h:4333/"),
        (("--all", "nats://h", "/mnt"), ("nats://h:4222",), "nats://h:4222/"),
        (("--all", "/mnt"), ("nats://env:4222",), "nats://env:4222/"),
        (("--all", "/mnt", "--server=tls://s"), ("tls://s:4222",), "tls://s:4222/"),
        (("-o", "all", "/mnt"), ("nats://env:4222",), "nats://env:4222/"),
    ],
)
def test_all_buckets(args: tuple[str, ...], urls: tuple[str, ...], source: str) -> None:
    """B1: a server without a bucket, and --all, ask for all buckets."""
    found = config(*args, environ={"NATS_URL": "nats://env"})
    assert (found.bucket, found.server.urls, found.source) == ("", urls, source)
    assert found.directory == Path("/mnt")


def test_embedded_all(tmp_path: Path) -> None:
    """B1: all buckets of the embedded server can be mounted."""
    found = config("--all", "--embedded", "/mnt")
    assert (found.bucket, found.source) == ("", "embedded:")
    assert found.embedded == tmp_path / "data" / "natsfs" / "server"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--all", "demo", "/mnt"), "--all shows all buckets, and SOURCE names 'demo'"),
        (("--create", "nats://h", "/mnt"), "--create makes one bucket"),
        (("/mnt",), "for all buckets of the usual server write `natsfs mount --all DIRECTORY`"),
    ],
)
def test_not_all_buckets(args: tuple[str, ...], said: str) -> None:
    """B1: what contradicts itself, or may be a slip, is refused."""
    with pytest.raises(UsageError, match=re.escape(said)):
        config(*args)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        (":9100", ("127.0.0.1", 9100)),
        ("[::1]:9100", ("::1", 9100)),
        ("host.example:1", ("host.example", 1)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    """E: where Prometheus may ask, by option or mount option; nowhere unless it is said."""
    assert Address().convert(text, None, None) == address
    assert config("demo", "/mnt", f"--metrics-address={text}").metrics_address == address
    assert config("demo", "/mnt", "-o", f"metrics_address={text}").metrics_address == address
    assert config("demo", "/mnt").metrics_address is None


@pytest.mark.parametrize("text", ["", "9100", "h:", "h:0", "h:65536", "a b:1", "nats://h:1"])
def test_no_addresses(text: str) -> None:
    """E: what is no address is refused, and how to write one said."""
    with pytest.raises(click.BadParameter, match="is not an address; write"):
        Address().convert(text, None, None)


def test_connections_by_mount_options(tmp_path: Path) -> None:
    """E: contexts, domains and prefixes are mount options; mount(8) leaves `nats_…` alone."""
    directory = tmp_path / ".config" / "nats" / "context"
    directory.mkdir(parents=True)
    (directory / "prod.json").write_text('{"url": "nats://prod", "inbox_prefix": "in"}')
    for word in ("context=prod", "nats_context=prod"):
        found = config("demo", "/mnt", "-o", f"{word},js_domain=hub")
        assert (found.server.urls, found.server.domain) == (("nats://prod:4222",), "hub")
        assert (found.server.context, found.server.inbox_prefix) == ("prod", "in")
        assert found.source == "nats://prod:4222/demo"
    assert config("demo", "/mnt", "--domain=hub").server.domain == "hub"
    (directory.parent / "context.txt").write_text("prod")
    assert config("--all", "/mnt").server.urls == ("nats://prod:4222",)
    assert config("demo", "/mnt", "-o", "no_context").server.context is None


def test_the_timeout_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """E: NATS_TIMEOUT counts where --timeout says nothing, as for the `nats` command."""
    monkeypatch.setenv("NATS_TIMEOUT", "9s")
    assert config("demo", "/mnt").server.timeout == 9
    assert config("demo", "/mnt", "-o", "timeout=8s").server.timeout == 8
    monkeypatch.setenv("NATS_TIMEOUT", "soon")
    with pytest.raises(click.BadParameter, match="is not a duration"):
        config("demo", "/mnt")
