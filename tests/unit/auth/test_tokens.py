"""Tokens that must name somebody, and the attacks that must not."""

import hashlib
import hmac
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from org_service.auth.tokens import TokenRejected, Tokens
from tests.support import issuer as issuing
from tests.support.issuer import AT, CLAIMS, ISSUER, Signer, base64url, ec_key, ed_key, rsa_key
from tests.unit.auth.rejections import ED, UNLISTED, rejection


def signed_with_secret(secret: bytes, algorithm: str = "HS256", kid: str = "rsa") -> bytes:
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    header = {"typ": "JWT", "alg": algorithm, "kid": kid}
    content = base64url(json.dumps(header).encode()) + b"." + base64url(json.dumps(dict(CLAIMS)).encode())
    return content + b"." + base64url(hmac.digest(secret, content, digest))


@pytest.mark.parametrize("signer", [rsa_key(), ec_key(), ED], ids=["RS256", "ES256", "EdDSA"])
async def test_a_good_token_names_its_user_and_is_known_from_then_on(tokens: Tokens, signer: Signer) -> None:
    token = signer.token(sub="ann")
    assert tokens.find_known(token, AT) is None
    assert await tokens.verify(token, AT) == "ann"
    assert tokens.find_known(token, AT) == "ann"
    assert await tokens.verify(token, AT) == "ann"


@pytest.mark.parametrize("audience", ["orgs", ["orgs"], ["billing", "orgs"]], ids=str)
async def test_a_token_may_be_for_several_audiences(tokens: Tokens, audience: Any) -> None:
    assert await tokens.verify(ED.token(aud=audience), AT) == "ann"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", None])
async def test_an_unsigned_token_is_rejected(tokens: Tokens, name: str | None) -> None:
    head, payload, signature = ED.token({"alg": name}).split(b".")
    for end in (b"", signature):
        assert await rejection(tokens, b".".join([head, payload, end])) == "The token is not signed."


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("signer", [rsa_key(), ec_key(), ED], ids=["RSA", "EC", "Ed25519"])
async def test_a_public_key_is_not_accepted_as_a_shared_secret(tokens: Tokens, signer: Signer, algorithm: str) -> None:
    jwk = signer.jwk()
    secrets = [
        signer.pem(),
        signer.pem().strip(),
        json.dumps(jwk).encode(),
        json.dumps({"keys": [jwk]}).encode(),
        str(jwk.get("n") or jwk["x"]).encode(),
        b"",
    ]
    for secret in secrets:
        token = signed_with_secret(secret, algorithm, str(signer.kid))
        assert await rejection(tokens, token) == "The token's algorithm is not accepted; accepted: RS256, ES256, EdDSA."


@pytest.mark.parametrize(
    "name", ["rs256", "eddsa", "Eddsa", "es256", "RS512", "PS256", "ES256 ", "ed25519", "Ed448", ""]
)
async def test_another_algorithm_is_rejected_even_if_only_its_case_differs(tokens: Tokens, name: str) -> None:
    assert "algorithm is not accepted" in await rejection(tokens, ED.token({"alg": name}))


@pytest.mark.parametrize("name", [["EdDSA"], {"EdDSA": 1}, 1, True], ids=str)
async def test_an_algorithm_that_is_not_a_string_counts_as_unsigned(tokens: Tokens, name: Any) -> None:
    assert await rejection(tokens, ED.token({"alg": name})) == "The token is not signed."


@pytest.mark.parametrize(
    "head",
    [
        b'{"alg":"none","alg":"EdDSA","kid":"ed"}',
        b'{"alg":"EdDSA","alg":"none","kid":"ed"}',
        b'{"alg":"EdDSA","\\u0061lg":"HS256","kid":"ed"}',
        b'{"alg":"EdDSA","kid":"rsa","kid":"ed"}',
    ],
)
async def test_a_header_with_a_name_twice_is_rejected(tokens: Tokens, head: bytes) -> None:
    token = ED.sign_parts(head, json.dumps(dict(CLAIMS)).encode())
    assert await rejection(tokens, token) == "The token's header is not JSON, or has a duplicate member."


async def test_a_key_verifies_only_its_own_algorithm(tokens: Tokens) -> None:
    token = ED.token({"kid": "rsa"})
    assert await rejection(tokens, token) == "The token's algorithm does not match its key."


@pytest.mark.parametrize("listed", [("EdDSA",), ("Ed25519",)])
@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
async def test_ed25519_has_two_names(tmp_path: Path, listed: tuple[str, ...], name: str) -> None:
    """RFC 9864."""
    tokens = Tokens(issuing.auth(tmp_path, rsa_key(), ED, algorithms=listed))
    await tokens.start()
    assert await tokens.verify(ED.token({"alg": name}), AT) == "ann"
    token = ED.token({"kid": "rsa", "alg": name})
    assert await rejection(tokens, token) == "The token's algorithm does not match its key."
    await tokens.close()


async def test_of_several_keys_with_one_id_each_verifies_its_own_tokens(tmp_path: Path) -> None:
    same, other = ed_key("ed"), rsa_key().called("ed")
    tokens = Tokens(issuing.auth(tmp_path, ED, same, other))
    await tokens.start()
    for signer in (ED, same, other):
        assert await tokens.verify(signer.token(), AT) == "ann"
    assert await rejection(tokens, ed_key("ed").token()) == "The token's signature is invalid."
    await tokens.close()


async def test_a_key_without_an_id_verifies_tokens_with_any_beside_keys_that_have_one(tmp_path: Path) -> None:
    nameless = ed_key(None)
    tokens = Tokens(issuing.auth(tmp_path, ED, nameless))
    await tokens.start()
    assert await tokens.verify(ED.token(), AT) == "ann"
    assert await tokens.verify(nameless.token(), AT) == "ann"
    assert await tokens.verify(nameless.called("any").token(), AT) == "ann"
    assert await rejection(tokens, ED.called(None).token()) == "The token's signature is invalid."
    await tokens.close()


async def test_an_algorithm_may_be_disabled(tmp_path: Path) -> None:
    tokens = Tokens(issuing.auth(tmp_path, rsa_key(), ED, algorithms=("EdDSA",)))
    await tokens.start()
    assert await tokens.verify(ED.token(), AT) == "ann"
    assert await rejection(tokens, rsa_key().token()) == "The token's algorithm is not accepted; accepted: EdDSA."
    await tokens.close()


@pytest.mark.parametrize("signer", [rsa_key(), ec_key(), ED], ids=["RS256", "ES256", "EdDSA"])
async def test_a_changed_token_is_rejected(tokens: Tokens, signer: Signer) -> None:
    head, payload, signature = signer.token().split(b".")
    other = signer.token(sub="bob").split(b".")
    assert await rejection(tokens, b".".join([head, other[1], signature])) == "The token's signature is invalid."
    assert await rejection(tokens, b".".join([head, payload, other[2]])) == "The token's signature is invalid."
    assert await rejection(tokens, b".".join([head, payload, b""])) == "The token's signature is invalid."
    assert await rejection(tokens, b".".join([head, payload, signature[:-4]])) == "The token's signature is invalid."


async def test_the_spare_bits_of_base64url_must_be_zero(tokens: Tokens) -> None:
    token = ED.token()
    last = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(token[-1:])
    for spare in range(1, 16):
        other = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last ^ spare]
        await rejection(tokens, token[:-1] + bytes([other]))


async def test_a_token_of_another_key_is_rejected_whatever_it_calls_itself(tokens: Tokens) -> None:
    assert "is not one of the issuer's" in await rejection(tokens, UNLISTED.token())
    assert "is not one of the issuer's" in await rejection(tokens, UNLISTED.called(None).token())
    assert await rejection(tokens, UNLISTED.called("ed").token()) == "The token's signature is invalid."


@pytest.mark.parametrize("kid", [7, ["ed"], {"a": 1}, False], ids=str)
async def test_a_key_id_that_is_no_text_is_rejected(tokens: Tokens, kid: Any) -> None:
    assert await rejection(tokens, ED.token({"kid": kid})) == "The token's kid must be a string."


async def test_keys_embedded_in_a_token_are_ignored(tokens: Tokens) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/jwks.json"
        for headers in ({"jku": url}, {"x5u": url}, {"jwk": UNLISTED.jwk()}, {"x5c": ["AAAA"]}):
            await rejection(tokens, UNLISTED.token(headers))
            assert await rejection(tokens, UNLISTED.called("ed").token(headers)) == "The token's signature is invalid."
            assert await tokens.verify(ED.token(headers), AT) == "ann"
        with pytest.raises(TimeoutError):
            server.accept()


async def test_a_token_that_requires_an_extension_is_rejected(tokens: Tokens) -> None:
    for headers in ({"crit": ["exp"]}, {"crit": ["b64"], "b64": True}, {"crit": []}, {"crit": "x"}):
        said = "The token requires an extension (crit); none is supported."
        assert await rejection(tokens, ED.token(headers)) == said


async def test_a_detached_payload_is_rejected(tokens: Tokens) -> None:
    await rejection(tokens, ED.token({"b64": False}))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "application/jwt"])
async def test_a_nested_token_is_rejected_by_its_header(tokens: Tokens, kind: str) -> None:
    assert (
        await rejection(tokens, ED.token({"cty": kind})) == "The token contains another token; it must contain claims."
    )


async def test_a_nested_token_is_rejected_by_its_payload(tokens: Tokens) -> None:
    inner = ED.token()
    for payload in (inner, b'"' + inner + b'"'):
        assert await rejection(tokens, ED.sign(payload)) == "The token contains another token; it must contain claims."


async def test_an_encrypted_token_is_rejected(tokens: Tokens) -> None:
    head = base64url(b'{"alg":"RSA-OAEP","enc":"A256GCM"}')
    token = b".".join([head, b"a2V5", b"aXY", b"Y2lwaGVy", b"dGFn"])
    assert await rejection(tokens, token) == "The token is encrypted (JWE); it must only be signed."


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b".",
        b"..",
        b"...",
        b"a",
        b"a.b",
        b"a.b.c",
        b"a.b.c.d",
        b"\xff\xfe.\x00.\n",
        b"{}.{}.",
        b"e30=.e30=.AAAA",
        b" " * 300,
        b"null",
        b"." * 8000,
    ],
)
async def test_garbage_is_rejected(tokens: Tokens, garbage: bytes) -> None:
    await rejection(tokens, garbage)


async def test_characters_around_a_token_are_not_ignored(tokens: Tokens) -> None:
    token = ED.token()
    head, payload, signature = token.split(b".")
    for other in (
        token + b"=",
        token + b"\n",
        b" " + token,
        token.replace(b".", b"\n."),
        head + b"==." + payload + b"." + signature,
        token + b".",
        token + b"." + signature,
    ):
        await rejection(tokens, other)


@pytest.mark.parametrize(
    "part", [b"[]", b'"x"', b"null", b"7", b"{", b'{"a":1}}', b"\xff", b"\xef\xbb\xbf{}"], ids=repr
)
async def test_header_and_claims_must_be_json_objects(tokens: Tokens, part: bytes) -> None:
    assert re.match(r"The token's header is not (a )?JSON", await rejection(tokens, ED.sign_parts(part, b"{}")))
    assert re.match(r"The token's payload is not (a )?JSON", await rejection(tokens, ED.sign(part)))


async def test_json_in_another_encoding_than_utf_8_is_rejected(tokens: Tokens) -> None:
    claims = json.dumps(dict(CLAIMS))
    await rejection(tokens, ED.sign(claims.encode("utf-16")))
    await rejection(tokens, ED.sign(claims.encode("utf-32")))


async def test_deep_nesting_is_rejected(tokens: Tokens) -> None:
    deep = b"[" * 2500
    assert "not JSON" in await rejection(tokens, ED.sign(b'{"a":' + deep + b"]" * 2500 + b"}"))
    assert "not JSON" in await rejection(tokens, ED.sign_parts(b'{"a":' + deep, b"{}"))


async def test_a_token_is_as_long_as_allowed_and_no_longer(tmp_path: Path) -> None:
    longest, longer = (ED.token(pad="x" * length) for length in (300, 301))
    tokens = Tokens(issuing.auth(tmp_path, ED, token_bytes_max=len(longest)))
    await tokens.start()
    assert len(longer) > len(longest)
    assert await tokens.verify(longest, AT) == "ann"
    assert await rejection(tokens, longer) == f"The token is longer than {len(longest)} bytes."
    await tokens.close()


async def test_a_long_token_is_rejected_before_it_is_read(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr("org_service.auth.tokens.json.loads", fail)
    monkeypatch.setattr("org_service.auth.tokens.base64.urlsafe_b64decode", fail)
    assert await rejection(tokens, b"e30." + b"A" * 100_000 + b".AAAA") == "The token is longer than 8192 bytes."


@pytest.mark.parametrize("other", ["https://issuer.example/", "HTTPS://ISSUER.EXAMPLE", "", None, 7, [ISSUER]], ids=str)
async def test_a_token_of_another_issuer_is_rejected(tokens: Tokens, other: Any) -> None:
    assert await rejection(tokens, ED.token(iss=other)) == "The token is from another issuer."


@pytest.mark.parametrize(
    "other", ["billing", "Orgs", "orgs ", "", None, 7, [], ["billing"], [["orgs"]], ["orgs", 7], {"orgs": 1}], ids=str
)
async def test_a_token_for_another_audience_is_rejected(tokens: Tokens, other: Any) -> None:
    assert await rejection(tokens, ED.token(aud=other)) == "The token is for another audience."


@pytest.mark.parametrize(
    "sub",
    ["", None, " ", "ann smith", "ann\n", "\x00", "ånn", "\ud800", "\x7f", "a" * 201, 7, True, ["ann"], {"ann": 1}],
    ids=ascii,
)
async def test_a_token_must_name_a_user_as_memberships_do(tokens: Tokens, sub: Any) -> None:
    said = "The token's sub must be the user's id: 1 to 200 visible ASCII characters."
    assert await rejection(tokens, ED.token(sub=sub)) == said


@pytest.mark.parametrize("sub", ["!", "~", "a" * 200, "auth0|5f7c", "ann@example.com"])
async def test_a_user_id_may_have_every_visible_ascii_character(tokens: Tokens, sub: str) -> None:
    assert await tokens.verify(ED.token(sub=sub), AT) == sub


async def test_claims_with_a_name_twice_are_rejected(tokens: Tokens) -> None:
    claims = json.dumps(dict(CLAIMS)).encode()
    twice = claims.replace(b'"sub": "ann"', b'"sub": "ann", "sub": "root"')
    assert twice != claims
    assert await rejection(tokens, ED.sign(twice)) == "The token's payload is not JSON, or has a duplicate member."


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ["-1", "1e999", '"1772366400"', "true", "[]", "1772366400000"])
async def test_a_time_must_be_seconds_since_1970(tokens: Tokens, name: str, value: str) -> None:
    claims = json.dumps({**CLAIMS, name: "HERE"}).replace('"HERE"', value)
    assert (
        await rejection(tokens, ED.sign(claims.encode())) == f"The token's {name} is not a time in seconds since 1970."
    )


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
async def test_a_number_that_json_does_not_have_is_rejected(tokens: Tokens, value: str) -> None:
    claims = json.dumps({**CLAIMS, "exp": "HERE"}).replace('"HERE"', value)
    assert (
        await rejection(tokens, ED.sign(claims.encode()))
        == "The token's payload is not JSON, or has a duplicate member."
    )


async def test_a_token_must_expire(tokens: Tokens) -> None:
    assert await rejection(tokens, ED.token(exp=None)) == "The token never expires; it must have exp."


async def test_no_rejection_quotes_the_token(tokens: Tokens) -> None:
    secret = "sesame-open"
    for token in (
        ED.token({"kid": secret}),
        ED.token({"alg": secret}),
        ED.token({"cty": secret}, iss=secret),
        ED.token(aud=secret),
        ED.token(sub=secret + " "),
        ED.token(exp=secret),
        ED.sign(b'{"' + secret.encode()),
        secret.encode(),
    ):
        with pytest.raises(TokenRejected) as rejected:
            await tokens.verify(token, AT)
        assert secret not in str(rejected.value)
        assert rejected.value.__cause__ is None
        assert rejected.value.__suppress_context__ or rejected.value.__context__ is None
