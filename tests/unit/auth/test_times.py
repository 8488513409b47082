"""When a token is valid, judged at the moment given, and which tokens are remembered."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from org_service.auth.tokens import TokenRejected, Tokens
from tests.support import issuer as issuing
from tests.support.issuer import AT, AT_S
from tests.unit.auth.rejections import ED, rejection

LEEWAY_S = 5


@pytest.mark.parametrize("first", [True, False], ids=["not seen before", "known"])
@pytest.mark.parametrize(
    ("moment_s", "said"),
    [
        (AT_S - 1800 - LEEWAY_S - 0.001, "The token was not valid yet."),
        (AT_S - 1800 - LEEWAY_S, None),
        (AT_S + 1800 + LEEWAY_S - 0.001, None),
        (AT_S + 1800 + LEEWAY_S, "The token had expired."),
        (0, "The token was not valid yet."),
        (AT_S * 2, "The token had expired."),
    ],
)
async def test_times_are_judged_at_the_moment_given(
    tokens: Tokens, moment_s: float, said: str | None, first: bool
) -> None:
    token = ED.token()
    at = datetime.fromtimestamp(moment_s, UTC)
    if not first:
        await tokens.verify(token, AT)
    if said is None:
        assert await tokens.verify(token, at) == "ann"
        assert tokens.find_known(token, at) == "ann"
        return
    with pytest.raises(TokenRejected) as rejected:
        await tokens.verify(token, at)
    assert str(rejected.value) == said
    if not first:
        with pytest.raises(TokenRejected) as rejected:
            tokens.find_known(token, at)
        assert str(rejected.value) == said


async def test_the_later_of_nbf_and_iat_counts(tokens: Tokens) -> None:
    for claims in ({"nbf": AT_S + 100}, {"iat": AT_S + 100}):
        assert await rejection(tokens, ED.token(**claims)) == "The token was not valid yet."
        assert await tokens.verify(ED.token(**claims), AT + timedelta(seconds=100)) == "ann"


async def test_a_token_may_leave_out_when_it_begins(tokens: Tokens) -> None:
    assert await tokens.verify(ED.token(nbf=None, iat=None), datetime(1971, 1, 1, tzinfo=UTC)) == "ann"


async def test_fractions_of_seconds_count(tokens: Tokens) -> None:
    token = ED.token(exp=AT_S - LEEWAY_S + 0.5)
    assert await tokens.verify(token, AT + timedelta(milliseconds=499)) == "ann"
    with pytest.raises(TokenRejected, match="expired"):
        tokens.find_known(token, AT + timedelta(milliseconds=500))


async def test_a_token_that_expired_long_ago_is_good_for_a_command_of_its_time(tokens: Tokens) -> None:
    taken = datetime(2001, 1, 1, tzinfo=UTC)
    began = int(taken.timestamp()) - 10
    token = ED.token(iat=began, nbf=began, exp=began + 60)
    assert await tokens.verify(token, taken) == "ann"
    assert await rejection(tokens, ED.token(iat=began, nbf=began, exp=began + 60, jti="2"), datetime.now(UTC)) == (
        "The token had expired."
    )


async def test_a_moment_may_be_given_in_any_time_zone(tokens: Tokens) -> None:
    token = ED.token()
    for hours in (-11, 0, 13):
        assert await tokens.verify(token, AT.astimezone(timezone(timedelta(hours=hours)))) == "ann"


async def test_the_tokens_used_last_are_remembered(tmp_path: Path) -> None:
    tokens = Tokens(issuing.auth(tmp_path, ED, tokens_cached=2))
    await tokens.start()
    first, second, third = (ED.token(sub=name) for name in ("a", "b", "c"))
    await tokens.verify(first, AT)
    await tokens.verify(second, AT)
    assert tokens.find_known(first, AT) == "a"
    await tokens.verify(third, AT)
    assert [tokens.find_known(token, AT) for token in (first, second, third)] == ["a", None, "c"]
    await tokens.close()


async def test_the_token_cache_may_be_disabled(tmp_path: Path) -> None:
    tokens = Tokens(issuing.auth(tmp_path, ED, tokens_cached=0))
    await tokens.start()
    assert await tokens.verify(ED.token(), AT) == "ann"
    assert tokens.find_known(ED.token(), AT) is None
    await tokens.close()
