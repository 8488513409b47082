"""The `authorization` header taken apart."""

import pytest

from org_service.auth.tokens import TokenRejected, parse_bearer


@pytest.mark.parametrize("header", [b"Bearer a.b.c", b"bearer a.b.c", b"BEARER   a.b.c", b" Bearer a.b.c "])
def test_the_scheme_is_bearer_in_any_case(header: bytes) -> None:
    assert parse_bearer(header) == b"a.b.c"


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b" ",
        b"Bearer",
        b"Bearer ",
        b"a.b.c",
        b"Basic YW5uOnNlc2FtZQ==",
        b"Bearera.b.c",
        b"Bearer a.b.c d.e.f",
        b"Bearer a.b.c,d.e.f",
        b"Bearer a.b.c, Bearer d.e.f",
        b"Bearer Bearer a.b.c",
        b"\xff\x00",
    ],
)
def test_a_header_is_bearer_and_one_token_or_rejected(header: bytes) -> None:
    with pytest.raises(TokenRejected, match="must be Bearer followed by one token"):
        parse_bearer(header)
