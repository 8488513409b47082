"""What the tests of tokens share: a key of the issuer, one of an attacker, and how a rejection is seen."""

from datetime import datetime

import pytest

from org_service.auth.tokens import TokenRejected, Tokens
from tests.support.issuer import AT, ed_key

ED = ed_key()
UNLISTED = ed_key("unlisted")


async def rejection(tokens: Tokens, token: bytes, at: datetime = AT) -> str:
    """Why a token is rejected; twice, so that nothing is remembered of the first time."""
    with pytest.raises(TokenRejected) as first:
        await tokens.verify(token, at)
    with pytest.raises(TokenRejected) as again:
        await tokens.verify(token, at)
    assert str(again.value) == str(first.value)
    assert tokens.find_known(token, AT) is None, "it was remembered as a good one"
    return str(first.value)
