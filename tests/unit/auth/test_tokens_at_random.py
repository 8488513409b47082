"""Whatever bytes come in, nobody gets in by them, and nothing breaks."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from org_service.auth.tokens import TokenRejected, Tokens, parse_bearer
from tests.support import issuer as issuing
from tests.support.issuer import AT, CLAIMS, base64url, ec_key, ed_key, rsa_key

ED = ed_key()
ATTACKER = ed_key()
GOOD = [rsa_key().token(), ec_key().token(), ED.token()]

Ask = Callable[[bytes], str | None]

names = st.sampled_from(
    ["alg", "kid", "cty", "crit", "b64", "typ", "jwk", "zip", "iss", "aud", "sub", "exp", "nbf", "iat"]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["none", "HS256", "EdDSA", "RS256", "ES256", "ed", "rsa", "ec", "orgs", issuing.ISSUER, "ann"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
documents = st.dictionaries(names, values, max_size=8)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Whom a token names; None when it is rejected. Whatever else happens is raised."""
    loop = asyncio.new_event_loop()
    tokens = Tokens(issuing.auth(tmp_path_factory.mktemp("keys"), rsa_key(), ec_key(), ED))
    loop.run_until_complete(tokens.start())

    def ask(token: bytes) -> str | None:
        try:
            return run(tokens.verify(token, AT))
        except TokenRejected:
            return None

    def run(answer: Awaitable[str]) -> str:
        return loop.run_until_complete(answer)

    yield ask
    loop.run_until_complete(tokens.close())
    loop.close()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=600))
def test_random_bytes_are_rejected(ask: Ask, token: bytes) -> None:
    assert ask(token) is None


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=80).map(base64url), min_size=1, max_size=6))
def test_random_parts_are_rejected(ask: Ask, parts: list[bytes]) -> None:
    assert ask(b".".join(parts)) is None


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.sampled_from(GOOD), st.data())
def test_a_good_token_with_any_byte_changed_added_or_lost_is_rejected(ask: Ask, token: bytes, data: Any) -> None:
    assert ask(token) == "ann"
    at = data.draw(st.integers(0, len(token) - 1))
    instead = data.draw(st.binary(max_size=3) | st.sampled_from(b"ABghyz019-_.=").map(lambda byte: bytes([byte])))
    changed = token[:at] + instead + token[at + 1 :]
    if changed != token:
        assert ask(changed) is None


@settings(max_examples=300, deadline=None, derandomize=True)
@given(documents, documents)
def test_whatever_an_attacker_signs_is_rejected(ask: Ask, header: dict[str, Any], claims: dict[str, Any]) -> None:
    whole = json.dumps({"alg": "EdDSA", "kid": "ed"} | header).encode()
    assert ask(ATTACKER.sign_parts(whole, json.dumps({**CLAIMS, **claims}).encode())) is None


@settings(max_examples=300, deadline=None, derandomize=True)
@given(documents, documents)
def test_whatever_the_issuer_signs_breaks_nothing(ask: Ask, header: dict[str, Any], claims: dict[str, Any]) -> None:
    whole = json.dumps({"alg": "EdDSA", "kid": "ed"} | header).encode()
    named = ask(ED.sign_parts(whole, json.dumps({**CLAIMS, **claims}).encode()))
    assert named in (None, {**CLAIMS, **claims}["sub"])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda rest: b"Bearer " + rest))
def test_a_header_gives_a_token_or_is_rejected(header: bytes) -> None:
    try:
        token = parse_bearer(header)
    except TokenRejected:
        return
    assert header.lower().strip().startswith(b"bearer ")
    assert token
    assert header.strip().endswith(token)
