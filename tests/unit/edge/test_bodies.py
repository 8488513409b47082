"""What becomes of a request's body."""

from uuid import UUID

import pytest

from org_service.edge.http.bodies import make_bodies, read_object
from org_service.edge.http.changing import derive_org_id
from org_service.edge.http.problems import ProblemError

ORG = UUID("0a000000-0000-4000-8000-000000000001")
COMMAND = UUID("5b0f2a7c-94d6-5e0a-8c11-7f1e2d3c4b5a")


def rejected(
    status: int, content: bytes, content_type: str | None = "application/json", *, patch: bool = False
) -> ProblemError:
    with pytest.raises(ProblemError) as rejection:
        read_object(content, content_type, [], patch=patch)
    assert rejection.value.status == status
    return rejection.value


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/json; charset=utf8",
        "application/json;",
        "application/json ; ; charset=us-ascii ;",
        "application/json; v=1.0",
        'application/json; profile="a; charset=latin-1"',
    ],
)
def test_json_is_accepted_under_each_of_its_media_types(content_type: str) -> None:
    assert read_object(b'{"a":1}', content_type, [], patch=False) == {"a": 1}


def test_a_patch_may_be_a_merge_patch_and_other_types_get_accept_patch() -> None:
    assert read_object(b"{}", "application/merge-patch+json", [], patch=True) == {}
    rejected(415, b"{}", "application/merge-patch+json")
    rejection = rejected(415, b"{}", "application/json-patch+json", patch=True)
    assert rejection.headers == [(b"accept-patch", b"application/json, application/merge-patch+json")]


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        (None, "Content-Type is missing."),
        ("", "Content-Type is missing."),
        ("text/plain", "The body has another media type."),
        ("application/json; charset=latin-1", "The charset must be utf-8 or absent."),
        ("json", "Content-Type is malformed (RFC 9110, section 8.3)."),
        ("application/json, text/plain", "Content-Type is malformed (RFC 9110, section 8.3)."),
        ("application/json; charset", "Content-Type is malformed (RFC 9110, section 8.3)."),
        (";application/json", "Content-Type is malformed (RFC 9110, section 8.3)."),
        ('application/json; v="', "Content-Type is malformed (RFC 9110, section 8.3)."),
    ],
)
def test_another_media_type_is_rejected_with_an_explanation(content_type: str | None, words: str) -> None:
    detail = rejected(415, b"{}", content_type).problem["detail"]
    assert words in detail
    assert detail.endswith("Send application/json, in UTF-8 and without Content-Encoding.")


@pytest.mark.parametrize("lines", [["gzip"], ["identity", "gzip"], ["identity, br"]])
def test_an_encoded_body_is_rejected(lines: list[str]) -> None:
    with pytest.raises(ProblemError) as rejection:
        read_object(b"{}", "application/json", lines, patch=False)
    assert rejection.value.status == 415


@pytest.mark.parametrize("lines", [[], [""], ["identity"], ["Identity,", "identity"]])
def test_an_identity_encoding_is_accepted(lines: list[str]) -> None:
    assert read_object(b"{}", "application/json", lines, patch=False) == {}


def test_a_byte_order_mark_is_accepted_and_another_encoding_is_named() -> None:
    assert read_object(b'\xef\xbb\xbf{"a":1}', "application/json", [], patch=False) == {"a": 1}
    assert "UTF-16" in rejected(400, '{"a":1}'.encode("utf-16")).problem["detail"]
    assert "not a string that contains one" in rejected(400, b'"{}"').problem["detail"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"1", b'"a"', b"null", b'{"a":NaN}', b"\xff", b'{"a":"\xed\xa0\x80"}']
)
def test_a_body_that_is_not_a_json_object_is_rejected(content: bytes) -> None:
    rejected(400, content)


def test_nesting_is_bounded_where_the_worker_bounds_it() -> None:
    assert read_object(b'{"a":' + b"[" * 15 + b"1" + b"]" * 15 + b"}", "application/json", [], patch=False)
    rejected(400, b'{"a":' + b"[" * 16 + b"1" + b"]" * 16 + b"}")


def test_nesting_beyond_the_recursion_limit_is_rejected() -> None:
    rejected(400, b'{"a":' + b"[" * 900 + b"]" * 900 + b"}")


def test_there_is_one_body_for_each_version_that_if_match_lists() -> None:
    bodies = make_bodies({"name": "Acme"}, ORG, (7, 9))
    assert [body.value for body in bodies] == [
        b'{"expected_version":7,"name":"Acme","org_id":"0a000000-0000-4000-8000-000000000001"}',
        b'{"expected_version":9,"name":"Acme","org_id":"0a000000-0000-4000-8000-000000000001"}',
    ]
    assert [body.expected_version for body in bodies] == [7, 9]


def test_without_if_match_the_body_is_what_was_sent_and_the_organization() -> None:
    (body,) = make_bodies({"name": 5, "expected_version": 3}, ORG, None)
    assert make_bodies({"name": 5, "expected_version": 3.0}, ORG, None) == [body]
    assert body.value == b'{"expected_version":3,"name":5,"org_id":"0a000000-0000-4000-8000-000000000001"}'
    assert body.expected_version is None


@pytest.mark.parametrize(
    ("fields", "versions", "status"),
    [
        ({"expected_version": 3}, (3,), 400),
        ({"org_id": "0b000000-0000-4000-8000-000000000001"}, None, 400),
        ({"org_id": 5}, None, 400),
        # Within the limit as it was sent (1e9), and beyond it once it is written out (1000000000.0).
        ({"numbers": [1e9] * 6000}, None, 413),
    ],
)
def test_a_body_that_cannot_be_a_command_is_rejected(
    fields: dict[str, object], versions: tuple[int, ...] | None, status: int
) -> None:
    with pytest.raises(ProblemError) as rejection:
        make_bodies(fields, ORG, versions)
    assert rejection.value.status == status


def test_the_organization_may_be_named_in_the_body_too() -> None:
    (body,) = make_bodies({"org_id": str(ORG).upper()}, ORG, None)
    assert body.value == b'{"org_id":"0a000000-0000-4000-8000-000000000001"}'


def test_a_generated_id_is_the_same_for_the_same_command() -> None:
    first = derive_org_id(COMMAND)
    assert (first.version, first.variant) == (4, "specified in RFC 4122")
    assert first == derive_org_id(COMMAND)
    assert first != derive_org_id(ORG)
