"""Which keys of a set are taken, and which sets are rejected whole."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448

from org_service.auth.key_set import KeySetError, read_key_set
from tests.support.issuer import ec_key, ed_key, jwk_of, jwks, rsa_key

ED = ed_key()


def test_each_kind_of_key_verifies_one_algorithm() -> None:
    keys, unusable = read_key_set(jwks(rsa_key(), ec_key(), ED))
    assert {kid: [key.algorithm for key in several] for kid, several in keys.items()} == {
        "rsa": ["RS256"], "ec": ["ES256"], "ed": ["EdDSA"]
    }  # fmt: skip
    assert keys["ed"][0].public == ED.private.public_key()
    assert unusable == ()


@pytest.mark.parametrize("signer", [rsa_key(), ec_key(), ED], ids=["RSA", "EC", "Ed25519"])
def test_a_set_that_gives_a_private_key_away_is_rejected_whole(signer: Any) -> None:
    with pytest.raises(KeySetError, match="key 2 is a private key"):
        read_key_set(jwks(ed_key("other"), signer.private_jwk()))


@pytest.mark.parametrize("secret", [{"kty": "oct", "k": "c2VzYW1l"}, {"kty": "oct"}, {"kty": "RSA", "k": "c2VzYW1l"}])
def test_a_set_with_a_shared_secret_is_rejected_whole(secret: dict[str, str]) -> None:
    with pytest.raises(KeySetError, match="key 1 is a shared secret") as rejected:
        read_key_set(jwks(secret | {"kid": "s"}, ED))
    assert "c2VzYW1l" not in str(rejected.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"<html>", b"[]", b"null", b"{}", b'{"keys": null}', b'{"keys": {}}', b"[" * 100_000],
    ids=lambda content: repr(content[:10]),
)
def test_an_invalid_key_set_is_rejected(content: bytes) -> None:
    with pytest.raises(KeySetError, match="it is not "):
        read_key_set(content)


def changed(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**document, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (rsa_key(1024).jwk(), "it is an RSA key of 1024 bits, fewer than 2048"),
        (ec_key(ec.SECP384R1).jwk(), "its type is not RSA, EC P-256 or OKP Ed25519"),
        (ec_key(ec.SECP256K1).jwk(), "its type is not RSA, EC P-256 or OKP Ed25519"),
        (jwk_of(ed448.Ed448PrivateKey.generate().public_key()), "its type is not RSA, EC P-256 or OKP Ed25519"),
        (changed(ec_key().jwk(), crv=None), "its type is not RSA, EC P-256 or OKP Ed25519"),
        ({"kty": "AKP", "pub": "x"}, "its type is not RSA, EC P-256 or OKP Ed25519"),
        ({"kty": ["RSA"], "crv": {}}, "its type is not RSA, EC P-256 or OKP Ed25519"),
        (changed(rsa_key().jwk(), use="enc"), "it is not for signatures with RS256"),
        (changed(rsa_key().jwk(), alg="RS512"), "it is not for signatures with RS256"),
        (changed(rsa_key().jwk(), alg="HS256"), "it is not for signatures with RS256"),
        (changed(rsa_key().jwk(), alg="Ed25519"), "it is not for signatures with RS256"),
        (changed(ED.jwk(), alg=["EdDSA"]), "it is not for signatures with EdDSA"),
        (changed(ED.jwk(), key_ops=["encrypt"]), "it is not for signatures with EdDSA"),
        (changed(ED.jwk(), key_ops=7), "it is not for signatures with EdDSA"),
        (changed(ED.jwk(), kid=7), "its kid is not a string"),
        (changed(ED.jwk(), x="AAAA"), "its parameters are invalid"),
        (changed(ED.jwk(), x=7), "its parameters are invalid"),
        (changed(ED.jwk(), x=None), "its parameters are invalid"),
        (changed(ec_key().jwk(), y=ec_key().jwk()["x"]), "its parameters are invalid"),
        (changed(rsa_key().jwk(), n=None), "its parameters are invalid"),
        (changed(rsa_key().jwk(), e="AQ"), "its parameters are invalid"),
        ("ED", "it is not an object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unusable_key_is_skipped(key: Any, why: str) -> None:
    content = json.dumps({"keys": [key, ed_key("good").jwk()]}).encode()
    keys, unusable = read_key_set(content)
    assert list(keys) == ["good"]
    assert unusable == (f"key 1: {why}",)


@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
def test_a_key_may_say_what_it_is_for(name: str) -> None:
    key = changed(ED.jwk(), use="sig", alg=name, key_ops=["verify"])
    ((kid, (read,)),) = read_key_set(jwks(key)).keys.items()
    assert (kid, read.algorithm) == ("ed", "EdDSA")


def test_keys_may_have_no_id_and_several_may_share_one() -> None:
    nameless, other, same = ed_key(None), rsa_key().called(None), rsa_key().called("ed")
    keys, unusable = read_key_set(jwks(ED, nameless, same, other))
    assert {kid: [key.public for key in several] for kid, several in keys.items()} == {
        "ed": [ED.private.public_key(), same.private.public_key()],
        None: [nameless.private.public_key(), other.private.public_key()],
    }
    assert unusable == ()


def test_a_set_may_be_empty() -> None:
    assert read_key_set(b'{"keys": []}') == ({}, ())
