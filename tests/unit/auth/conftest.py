"""Tokens that are verified by keys of every kind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from org_service.auth.tokens import Tokens
from tests.support import issuer as issuing
from tests.support.issuer import ec_key, rsa_key
from tests.unit.auth.refusals import ED


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[Tokens]:
    """An issuer with an RSA key, a P-256 key and an Ed25519 key."""
    tokens = Tokens(issuing.auth(tmp_path, rsa_key(), ec_key(), ED))
    await tokens.start()
    yield tokens
    await tokens.close()
