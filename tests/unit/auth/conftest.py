"""Tokens that are verified by keys of every kind, and keys by themselves."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from org_service.auth import keys as module
from org_service.auth.tokens import Tokens
from tests.support import issuer as issuing
from tests.support.issuer import ec_key, rsa_key
from tests.unit.auth.rejections import ED
from tests.unit.auth.scripted import Clock, Opened


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[Tokens]:
    """An issuer with an RSA key, a P-256 key and an Ed25519 key."""
    tokens = Tokens(issuing.auth(tmp_path, rsa_key(), ec_key(), ED))
    await tokens.start()
    yield tokens
    await tokens.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=time.monotonic, time=clock.time))
    return clock


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    opened = Opened()
    yield opened
    for keys in opened.all:
        await keys.close()
