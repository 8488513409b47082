"""Every rejection, over the wire. That each is as documented, the client of the tests checks."""

import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest

from tests.support.edge import Site

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def org_id(site: Site) -> str:
    """An organization with `amy` as admin and `ugo` as user."""
    made = site.create("Rejections")
    site.member("amy", made, "admin")
    site.member("ugo", made, "user")
    return made


def rejected(response: httpx2.Response, status: int, problem: str) -> httpx2.Response:
    assert (response.status_code, response.json()["type"]) == (status, f"urn:orgs:problem:{problem}"), response.text
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-request-id"]
    return response


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=ten", "limit"),
        ("order_by=domain", "order_by"),
        ("access=owner", "access"),
        (f"search={'x' * 254}", "search"),
        (f"cursor={'x' * 2001}", "cursor"),
    ],
)
def test_a_wrong_parameter_is_named(site: Site, query: str, path: str) -> None:
    with site.client("amy") as amy:
        answer = rejected(amy.get(f"/v1/orgs?{query}"), 400, "bad-request")
    assert [error["path"] for error in answer.json()["errors"]] == [path]


@pytest.mark.parametrize("query", ["cursor=abc", "cursor=%00", "search=a%00b"])
def test_a_parameter_that_makes_no_sense_is_rejected(site: Site, query: str) -> None:
    with site.client("amy") as amy:
        rejected(amy.get(f"/v1/orgs?{query}"), 400, "bad-request")


@pytest.mark.parametrize("query", ["after_version=-1", "after_version=9223372036854775808", "limit=x"])
def test_an_invalid_position_in_a_history_is_rejected(site: Site, org_id: str, query: str) -> None:
    with site.client("amy") as amy:
        rejected(amy.get(f"/v1/orgs/{org_id}/history?{query}"), 400, "bad-request")
        assert amy.get(f"/v1/orgs/{org_id}/history?after_version=9223372036854775807").json()["changes"] == []


def test_a_cursor_of_another_list_is_rejected(site: Site, org_id: str) -> None:
    with site.client("root") as root:
        cursor = root.get("/v1/orgs?limit=1").json()["next"] or root.get("/v1/orgs?limit=1&search=r").json()["next"]
        rejected(root.get(f"/v1/orgs?limit=1&order_by=-name&cursor={cursor}"), 400, "bad-request")
        rejected(root.get(f"/v1/orgs?limit=1&access=direct&cursor={cursor}"), 400, "bad-request")


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({}, b"{"),
        ({}, b"[]"),
        ({}, b'{"expected_version": 1, "org_id": 5}'),
        ({}, b'{"a":' + b"[" * 40 + b"]" * 40 + b"}"),
        ({"if-match": "v1"}, b"{}"),
        ({"if-match": '"v1"'}, b'{"expected_version": 1}'),
        ({"idempotency-key": "a b"}, b"{}"),
        ({"idempotency-key": "k" * 256}, b"{}"),
    ],
)
def test_a_change_that_cannot_be_read_is_rejected(
    site: Site, org_id: str, headers: dict[str, str], content: bytes
) -> None:
    with site.client("amy") as amy:
        answer = amy.patch(
            f"/v1/orgs/{org_id}", content=content, headers={"content-type": "application/json"} | headers
        )
        rejected(answer, 400, "bad-request")


def test_an_invalid_etag_is_rejected(site: Site, org_id: str) -> None:
    with site.client("amy") as amy:
        rejected(amy.get(f"/v1/orgs/{org_id}", headers={"if-none-match": "v1"}), 400, "bad-request")


@pytest.mark.parametrize("wanted", ["1", 1, "", {}])
def test_an_organization_cannot_be_created_under_an_invalid_id(site: Site, wanted: object) -> None:
    with site.client("root") as root:
        answer = rejected(root.post("/v1/orgs", json={"id": wanted, "name": "Acme"}), 400, "bad-request")
    assert answer.json()["errors"][0]["path"] == "id"


def test_nobody_is_let_in_without_a_good_token(site: Site) -> None:
    now = int(time.time())
    good = site.people.token("amy")
    with site.client() as anybody:
        for path in ("/v1/orgs", f"/v1/orgs/{uuid4()}", "/v1/nothing"):
            answer = rejected(anybody.get(path), 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
        for authorization in (
            "Bearer",
            "Basic YTpi",
            f"Bearer {good} {good}",
            f"Bearer {good[:-8]}AAAAAAAA",
            f"Bearer {site.people.token('amy', exp=now - 60)}",
            f"Bearer {site.people.token('amy', nbf=now + 60)}",
            f"Bearer {site.people.token('amy', aud='others')}",
            f"Bearer {site.people.token('amy', iss='https://else.example')}",
            "Bearer " + "a" * 9_000,
        ):
            answer = rejected(anybody.get("/v1/orgs", headers={"authorization": authorization}), 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
            assert good not in answer.text
        for both in ((good, "x.y.z"), ("x.y.z", good), (good, good)):
            twice = [("authorization", f"Bearer {each}") for each in both]
            rejected(anybody.get("/v1/orgs", headers=twice), 401, "unauthenticated")


def test_a_rejection_names_what_the_role_denies(site: Site, org_id: str) -> None:
    with site.client("ugo") as ugo:
        for answer in (
            ugo.patch(f"/v1/orgs/{org_id}", json={"name": "Mine"}),
            ugo.delete(f"/v1/orgs/{org_id}"),
            ugo.post(f"/v1/orgs/{org_id}/deactivate"),
            ugo.post(f"/v1/orgs/{org_id}/reactivate"),
            ugo.post(f"/v1/orgs/{org_id}/restore"),
            ugo.post("/v1/orgs", json={"name": "New"}),
        ):
            rejected(answer, 403, "forbidden")


def test_an_unknown_path_is_not_found(site: Site) -> None:
    with site.client("amy") as amy:
        for path in ("/", "/v1", "/v1/", "/v1/orgs/", "/v2/orgs", "/docs/nothing.js", "/docs/../x", "/v1/orgs/a/b"):
            rejected(amy.get(path), 404, "no-such-path")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/orgs", "GET, HEAD, POST"),
        ("/v1/orgs/x", "DELETE, GET, HEAD, PATCH"),
        ("/v1/orgs/x/history", "GET, HEAD"),
        ("/v1/orgs/x/deactivate", "POST"),
        ("/v1/commands/x", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "TRACE"])
def test_an_unsupported_method_is_answered_with_the_supported_ones(
    site: Site, path: str, allowed: str, method: str
) -> None:
    with site.client("amy") as amy:
        assert rejected(amy.request(method, path), 405, "method-not-allowed").headers["allow"] == allowed


def test_conflicts_say_what_they_are(site: Site) -> None:
    first, second = site.create("Conflict one"), site.create("Conflict two")
    for each in (first, second):
        site.member("con", each, "admin")
    site.execute(f"INSERT INTO partnership (partner_org_id, org_id, role) VALUES ('{second}', '{first}', 'user')")
    with site.client("con") as con, site.client("root") as root:
        rejected(con.patch(f"/v1/orgs/{first}", json={"name": "CONFLICT two"}), 409, "name-taken")
        rejected(con.patch(f"/v1/orgs/{first}", json={"expected_version": 5}), 409, "precondition-failed")
        rejected(root.post("/v1/orgs", json={"name": "Conflict two"}), 409, "name-taken")
        rejected(root.post("/v1/orgs", json={"id": first, "name": "Conflict three"}), 409, "already-exists")
        rejected(con.delete(f"/v1/orgs/{second}"), 409, "still-partner")
        assert con.post(f"/v1/orgs/{first}/deactivate").status_code == 200
        rejected(con.patch(f"/v1/orgs/{first}", json={"domain": None}), 409, "deactivated")


def test_another_media_type_is_rejected(site: Site, org_id: str) -> None:
    with site.client("amy") as amy:
        answer = amy.patch(f"/v1/orgs/{org_id}", content=b"{}", headers={"content-type": "text/plain"})
        rejected(answer, 415, "unsupported-media-type")
        assert answer.headers["accept-patch"] == "application/json, application/merge-patch+json"
        rejected(amy.patch(f"/v1/orgs/{org_id}", content=b"{}"), 415, "unsupported-media-type")
        rejected(amy.post("/v1/orgs", data={"name": "x"}), 415, "unsupported-media-type")
        rejected(amy.post(f"/v1/orgs/{org_id}/deactivate", content=b"x"), 415, "unsupported-media-type")


def test_wrong_fields_are_each_named(site: Site, org_id: str) -> None:
    body = {"name": " ", "domain": "acme", "primary_address": {"line1": "1", "city": "Oslo", "country": "XX"}}
    with site.client("amy") as amy, site.client("root") as root:
        answer = rejected(amy.patch(f"/v1/orgs/{org_id}", json=body), 422, "invalid-fields")
        created = rejected(root.post("/v1/orgs", json={}), 422, "invalid-fields")
        nul = rejected(amy.patch(f"/v1/orgs/{org_id}", json={"name": "a\0b"}), 422, "invalid-fields")
    assert [(error["path"], error["code"]) for error in answer.json()["errors"]] == [
        ("name", "blank"),
        ("domain", "too_few_labels"),
        ("primary_address.country", "unknown_country"),
    ]
    assert [error["path"] for error in created.json()["errors"]] == ["name"]
    assert [error["path"] for error in nul.json()["errors"]] == ["name"]


def test_a_body_that_is_too_large_is_rejected(site: Site, org_id: str) -> None:
    large = b'{"name": "' + b"x" * 65_536 + b'"}'
    grows = b'{"n": [' + b",".join([b"1e9"] * 6_000) + b"]}"
    headers = {"content-type": "application/json"}
    with site.client("amy") as amy:
        answer = rejected(amy.patch(f"/v1/orgs/{org_id}", content=large, headers=headers), 413, "body-too-large")
        assert answer.headers["connection"] == "close"
        rejected(amy.patch(f"/v1/orgs/{org_id}", content=grows, headers=headers), 413, "body-too-large")


@pytest.mark.parametrize(
    ("method", "path", "media_type", "token", "status", "problem"),
    [
        ("PATCH", "/v1/orgs/{org}", "application/json", False, 401, "unauthenticated"),
        ("POST", "/mcp", "application/json", False, 401, "unauthenticated"),
        ("POST", "/nothing", "application/json", False, 401, "unauthenticated"),
        ("PATCH", "/v1/nothing", "application/json", True, 404, "no-such-path"),
        ("PUT", "/v1/orgs", "application/json", True, 405, "method-not-allowed"),
        ("DELETE", "/mcp", "application/json", True, 405, "method-not-allowed"),
        ("PATCH", "/v1/orgs/{org}", "text/plain", True, 415, "unsupported-media-type"),
    ],
)
def test_caller_and_path_are_checked_before_the_body_arrives(
    site: Site, org_id: str, method: str, path: str, media_type: str, token: bool, status: int, problem: str
) -> None:
    def send(connection: Raw) -> None:
        line = f"{method} {path.format(org=org_id)} HTTP/1.1\r\nhost: x\r\ncontent-type: {media_type}\r\n"
        connection.send(line.encode() + (connection.authorization if token else b""))
        connection.send(b"content-length: 100\r\n\r\n")  # and no body

    answered, whole = raw(site, send)
    assert answered == status
    assert f"urn:orgs:problem:{problem}".encode() in whole
    assert b"connection: close\r\n" in whole


class Raw:
    """A connection without an HTTP library between."""

    def __init__(self, site: Site) -> None:
        at = urlsplit(site.url)
        self._socket = socket.create_connection((at.hostname or "", at.port or 0), timeout=10)
        self.authorization = f"authorization: Bearer {site.people.token('amy')}\r\n".encode()

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)

    def answer(self) -> bytes:
        """All that comes until the server closes."""
        parts: list[bytes] = []
        while part := self._socket.recv(65_536):
            parts.append(part)
        self._socket.close()
        return b"".join(parts)


def raw(site: Site, send: Callable[[Raw], None]) -> tuple[int, bytes]:
    connection = Raw(site)
    send(connection)
    whole = connection.answer()
    return int(whole.split(b" ")[1]), whole


def test_a_chunked_body_is_rejected_while_it_comes(site: Site, org_id: str) -> None:
    def send(connection: Raw) -> None:
        connection.send(b"PATCH /v1/orgs/%b HTTP/1.1\r\nhost: x\r\n" % org_id.encode() + connection.authorization)
        connection.send(b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(9):  # 72 KiB, and no end
            connection.send(b"2000\r\n" + b" " * 8192 + b"\r\n")

    status, whole = raw(site, send)
    assert status == 413
    assert b"urn:orgs:problem:body-too-large" in whole


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/orgs HTTP/1.1\r\nhost: x\r\nx-long: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /v1/orgs HTTP/1.1\r\nhost: x\r\n" + b"x-many: 0123456789\r\n" * 1_000 + b"\r\n",
        b"GET /v1/orgs?" + b"x" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["exactly one", "many headers", "the target"],
)
def test_headers_that_are_too_large_are_rejected(site: Site, head: bytes) -> None:
    status, whole = raw(site, lambda connection: connection.send(head))
    assert status == 431
    assert b"content-type: application/problem+json" in whole
    assert b"urn:orgs:problem:headers-too-large" in whole


def test_a_header_without_an_end_is_rejected_while_it_comes(site: Site) -> None:
    def send(connection: Raw) -> None:
        connection.send(b"GET /v1/orgs HTTP/1.1\r\nhost: x\r\nx-long: ")
        for _ in range(4):
            connection.send(b"x" * 8_192)
            time.sleep(0.05)  # so that they come in parts, as those of an attacker would

    status, _ = raw(site, send)
    assert status == 431


def test_headers_within_the_limit_are_accepted_with_a_body_beyond_it(site: Site, org_id: str) -> None:
    with site.client("amy") as amy:
        padding = {"x-padding": "x" * 14_000}
        for _ in range(2):
            assert amy.get("/v1/orgs", headers=padding).status_code == 200
        body = {"expected_version": 1, "padding": "x" * 60_000}
        assert amy.post(f"/v1/orgs/{org_id}/reactivate", json=body).status_code == 200


def test_a_request_that_is_not_http_gets_a_problem(site: Site) -> None:
    status, whole = raw(site, lambda connection: connection.send(b"HELLO\r\n\r\n"))
    assert status == 400
    assert b"urn:orgs:problem:bad-request" in whole
