"""Signing in at an issuer: what each guard is for, each tried against an issuer that has not that one."""

import base64
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
import pytest_asyncio

from org_service.console.oidc import Begun, Provider
from org_service.console.requests import Rejected
from org_service.settings import ConsoleSettings, Settings
from tests.support import provider as issuers
from tests.support.edge import People
from tests.support.issuer import ed_key, jwks

BACK = "https://orgs.example/console/sign-in/callback"


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[issuers.Provider]:
    """It signs `root` in."""
    with issuers.providing(People(tmp_path)) as started:
        yield started


@pytest_asyncio.fixture
async def provider(issuer: issuers.Provider) -> AsyncIterator[Provider]:
    """The page's side of it."""
    console = ConsoleSettings.model_validate(
        {
            "client_id": issuers.CLIENT_ID,
            "client_secret": issuers.CLIENT_SECRET,
            "discovery_url": issuer.discovery_url,
        }
    )
    made = Provider(Settings(auth=issuer.people.auth, console=console))
    yield made
    await made.close()


async def authorize(provider: Provider) -> tuple[Begun, str]:
    """What a browser keeps of a sign-in that it began, and the code that it comes back with."""
    url, begun = await provider.begin(BACK, "/console")
    async with httpx2.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(url)
    back = dict(parse_qsl(urlsplit(answer.headers["location"]).query))
    assert back["state"] == begun.state
    return begun, back["code"]


async def sign_in(provider: Provider) -> str:
    begun, code = await authorize(provider)
    return await provider.finish(begun, code, BACK)


async def test_the_issuer_says_who_it_was(provider: Provider) -> None:
    assert await sign_in(provider) == "root"


async def test_a_sign_in_shows_the_issuer_a_digest_of_what_only_its_browser_has(provider: Provider) -> None:
    url, begun = await provider.begin(BACK, "/console")
    asked = dict(parse_qsl(urlsplit(url).query))
    digest = base64.urlsafe_b64encode(hashlib.sha256(begun.verifier.encode()).digest()).decode().rstrip("=")
    assert (asked["code_challenge_method"], asked["code_challenge"]) == ("S256", digest)
    assert (asked["response_type"], asked["state"], asked["nonce"]) == ("code", begun.state, begun.nonce)
    assert begun.verifier not in url
    assert 43 <= len(begun.verifier) <= 128  # RFC 7636, section 4.1
    _, another = await provider.begin(BACK, "/console")
    assert not set(begun[:3]) & set(another[:3])


async def test_the_issuer_gives_nothing_for_a_code_of_another_sign_in(
    provider: Provider, issuer: issuers.Provider
) -> None:
    _, stolen = await authorize(provider)
    begun, _ = await authorize(provider)
    with pytest.raises(Rejected):
        await provider.finish(begun, stolen, BACK)
    assert issuer.refusals == ["another browser"]  # by the verifier alone: of client and address it had no doubt


async def test_a_code_is_worth_something_once(provider: Provider, issuer: issuers.Provider) -> None:
    begun, code = await authorize(provider)
    assert await provider.finish(begun, code, BACK) == "root"
    with pytest.raises(Rejected):
        await provider.finish(begun, code, BACK)
    assert issuer.refusals == ["no such code"]


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"nonce": "another"}, "belongs to another sign-in"),
        ({"nonce": None}, "belongs to another sign-in"),
        ({"aud": "orgs"}, "not valid"),  # a token for the API
        ({"aud": None}, "not valid"),
        ({"iss": "https://evil.example"}, "not valid"),
        ({"iss": None}, "not valid"),
        ({"exp": int(time.time()) - 60}, "not valid"),
        ({"exp": None}, "not valid"),
        ({"nbf": int(time.time()) + 3_600}, "not valid"),
    ],
)
async def test_an_id_token_that_is_not_for_this_sign_in_says_nothing(
    provider: Provider, issuer: issuers.Provider, claims: dict[str, Any], said: str
) -> None:
    issuer.claims.update(claims)
    with pytest.raises(Rejected) as rejected:
        await sign_in(provider)
    assert said in rejected.value.said


async def test_a_key_that_the_issuer_has_not_named_signs_nobody_in(
    provider: Provider, issuer: issuers.Provider
) -> None:
    known, issuer.people.signer = issuer.people.signer, ed_key("ed")  # of the same name
    with pytest.raises(Rejected, match="Sign-in failed"):
        await sign_in(provider)
    issuer.people.signer = known
    assert await sign_in(provider) == "root"


async def test_a_key_that_is_new_signs_in_at_once_and_the_one_that_is_gone_no_longer(
    provider: Provider, issuer: issuers.Provider, tmp_path: Path
) -> None:
    assert await sign_in(provider) == "root"
    old, issuer.people.signer = issuer.people.signer, ed_key("newer")
    (tmp_path / "jwks.json").write_bytes(jwks(issuer.people.signer))
    assert await sign_in(provider) == "root"
    issuer.people.signer = old
    with pytest.raises(Rejected):
        await sign_in(provider)


@pytest.mark.parametrize(
    "described",
    [{"issuer": "https://evil.example"}, {"issuer": None}, {"token_endpoint": None}, {"authorization_endpoint": 7}],
)
async def test_a_description_that_cannot_be_the_issuers_sends_nobody_anywhere(
    provider: Provider, issuer: issuers.Provider, described: dict[str, Any]
) -> None:
    issuer.described = described
    with pytest.raises(Rejected, match="Sign-in failed"):
        await provider.begin(BACK, "/console")
    issuer.described = {}
    assert await sign_in(provider) == "root"  # and it is asked again


async def test_a_description_longer_than_any_is_not_read(provider: Provider, issuer: issuers.Provider) -> None:
    issuer.described = {"more": "x" * 200_000}
    with pytest.raises(Rejected, match="Sign-in failed"):
        await provider.begin(BACK, "/console")
