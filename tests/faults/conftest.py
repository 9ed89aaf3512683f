"""Fixtures of the fault tests: those of the mount tests."""

from tests.mount.conftest import (  # noqa: F401
    bucket,
    environment,
    mounter,
    nats_url,
    py,
)
