"""What HTTP says of headers, paths and queries, over the wire."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from org_events.publishing.client import OrganizationClient
from tests.support.edge import Site

pytestmark = pytest.mark.integration

Headers = list[tuple[str, str]]
NIL = "00000000-0000-0000-0000-000000000000"
MAX = "ffffffff-ffff-ffff-ffff-ffffffffffff"


@pytest.fixture
def org_id(site: Site) -> str:
    """An organization of version 1, with `sem` as admin."""
    made = site.create(f"Semantics {uuid4()}")
    site.member("sem", made, "admin")
    return made


def patch(site: Site, org_id: str, headers: Headers, **fields: Any) -> httpx2.Response:
    with site.client("sem") as sem:
        return sem.patch(f"/v1/orgs/{org_id}", json=fields, headers=headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("if-match", '"v9"'), ("if-match", '"v1"')], 200),
        ([("if-match", '"v1"'), ("if-match", '"v9"')], 200),
        ([("if-match", '"v8"'), ("if-match", '"v9"')], 412),
        ([("if-match", '"v1",')], 200),
        ([("if-match", ', "v1" ,,')], 200),
        ([("if-match", '"v1-00000000"')], 200),
        ([("if-match", "*"), ("if-match", '"v1"')], 400),
        ([("if-none-match", "*")], 412),
        ([("if-none-match", "*"), ("if-match", '"v1"')], 412),
        ([("if-none-match", '"v1"')], 400),
        ([("idempotency-key", "one"), ("idempotency-key", "two")], 400),
        ([("content-type", "application/json; charset=utf8")], 200),
        ([("content-type", "application/json;v=1.0;")], 200),
        ([("content-type", "application/json; charset=latin-1")], 415),
        ([("content-encoding", "identity"), ("content-encoding", "gzip")], 415),
    ],
)
def test_headers_are_read_as_http_says(site: Site, org_id: str, headers: Headers, status: int) -> None:
    answer = patch(site, org_id, headers, domain="semantics.com")
    assert answer.status_code == status, answer.text
    with site.client("sem") as sem:
        version = sem.get(f"/v1/orgs/{org_id}").json()["version"]
    assert version == (2 if status == 200 else 1)


def test_a_key_sent_twice_is_one_key(site: Site, org_id: str) -> None:
    key = [("idempotency-key", f"twice-{org_id}")]
    first, again = (patch(site, org_id, key * times, domain="key.com") for times in (1, 2))
    assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)


def test_preferences_of_several_lines_count_together(site: Site, org_id: str) -> None:
    answer = patch(site, org_id, [("prefer", "return=minimal"), ("prefer", "respond-async")], domain="p.com")
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")


def test_respond_async_with_a_wait_waits_first(site: Site, org_id: str) -> None:
    answer = patch(site, org_id, [("prefer", "respond-async, wait=9")], domain="waited.com")
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=9")


def test_a_wait_beyond_the_limit_is_not_claimed(site: Site, org_id: str) -> None:
    answer = patch(site, org_id, [("prefer", "wait=4000")], domain="long.com")
    assert answer.status_code == 200
    assert "preference-applied" not in answer.headers


def test_a_weak_tag_is_explained(site: Site, org_id: str) -> None:
    answer = patch(site, org_id, [("if-match", 'W/"v1"')], domain="weak.com")
    assert answer.status_code == 412
    assert "weak entity tag" in answer.json()["detail"]
    assert "without W/" in answer.json()["detail"]


def test_if_none_match_reveals_nothing_the_caller_may_not_see(site: Site, org_id: str) -> None:
    with site.client("stranger") as stranger:
        unseen = stranger.delete(f"/v1/orgs/{org_id}", headers={"if-none-match": "*"})
    assert unseen.status_code == 404
    answer = patch(site, org_id, [("if-none-match", "*")])
    assert answer.json()["detail"] == "If-None-Match is *, and the organization exists."


@pytest.mark.parametrize("headers", [{"if-match": '"v1"'}, {"if-none-match": "*"}])
def test_a_precondition_on_what_is_yet_to_be_created_fails(site: Site, headers: dict[str, str]) -> None:
    name = f"Precondition {uuid4()}"
    with site.client("root") as root:
        assert root.post("/v1/orgs", json={"name": name}, headers=headers).status_code == 412
        assert root.get("/v1/orgs", params={"search": name}).json()["organizations"] == []


@pytest.mark.parametrize("reserved", [NIL, MAX, MAX.upper()])
def test_a_reserved_uuid_is_rejected(site: Site, reserved: str) -> None:
    with site.client("root") as root:
        answer = root.post("/v1/orgs", json={"name": "Nil", "id": reserved})
        assert root.get(f"/v1/orgs/{reserved}").status_code == 404
    assert answer.status_code == 400
    assert [error["code"] for error in answer.json()["errors"]] == ["reserved_uuid"]


def test_empty_parameters_count_as_absent(site: Site, org_id: str) -> None:
    with site.client("sem") as sem:
        plain = sem.get("/v1/orgs")
        empty = sem.get("/v1/orgs?search=&access=&order_by=&limit=&cursor=")
        history = sem.get(f"/v1/orgs/{org_id}/history?limit=&after_version=")
    assert (empty.status_code, empty.content) == (200, plain.content)
    assert [change["version"] for change in history.json()["changes"]] == [1]


@pytest.mark.parametrize("query", ["search=%ff", "search=%C3", "cursor=%ff"])
def test_a_parameter_that_is_not_utf_8_is_a_400(site: Site, query: str) -> None:
    with site.client("sem") as sem:
        answer = sem.get(f"/v1/orgs?{query}")
    assert answer.status_code == 400
    assert [(each["path"], each["code"]) for each in answer.json()["errors"]] == [(query[:6], "not_utf8")]


def test_an_encoded_slash_is_not_a_slash(site: Site, org_id: str) -> None:
    with site.client("sem") as sem:
        for path in (f"/v1%2Forgs/{org_id}", f"/v1/orgs%2F{org_id}", f"/v1/orgs%2f{org_id}"):
            answer = sem.get(path)
            assert (answer.status_code, answer.json()["type"]) == (404, "urn:orgs:problem:no-such-path"), path
        for path in (f"/v1/orgs/{org_id}%2Fhistory", f"/v1/orgs/{org_id}%2F"):
            assert sem.get(path).json()["type"] == "urn:orgs:problem:not-found", path
        assert sem.post(f"/v1/orgs/{org_id}%2Fdeactivate").status_code == 405
        assert sem.get(f"/v1/orgs/{org_id}").json()["deactivated"] is False


def test_a_byte_order_mark_is_read_and_an_integer_may_have_a_point(site: Site, org_id: str) -> None:
    body = b'\xef\xbb\xbf{"domain": "bom.com", "expected_version": 1.0}'
    with site.client("sem") as sem:
        answer = sem.patch(f"/v1/orgs/{org_id}", content=body, headers={"content-type": "application/json"})
        late = sem.patch(f"/v1/orgs/{org_id}", json={"domain": "late.com", "expected_version": 1.0})
        listed = sem.get("/v1/orgs?limit=1.0")
    assert (answer.status_code, answer.json()["domain"]) == (200, "bom.com")
    assert (late.status_code, listed.status_code) == (409, 200)


def test_a_misspelt_precondition_is_an_error(site: Site, org_id: str) -> None:
    answer = patch(site, org_id, [], domain="typo.com", if_current={"nmae": "Other"})
    assert answer.status_code == 422
    assert [(each["path"], each["code"]) for each in answer.json()["errors"]] == [
        ("if_current.nmae", "extra_forbidden")
    ]


def test_a_change_names_its_command(site: Site, org_id: str) -> None:
    answer = patch(site, org_id, [], domain="named.com")
    with site.client("sem") as sem:
        told = sem.get(f"/v1/commands/{answer.headers['x-command-id']}").json()
    assert (told["code"], told["version"]) == (200, 2)


def test_an_etag_changes_with_the_callers_role(site: Site, org_id: str) -> None:
    path = f"/v1/orgs/{org_id}"
    with site.client("sem") as sem, site.client("root") as root:
        before = sem.get(path)
        assert before.headers["etag"].startswith('"v1-')
        assert root.get(path).headers["etag"] != before.headers["etag"]
        assert sem.get(path, headers={"if-none-match": before.headers["etag"]}).status_code == 304
        site.execute(f"UPDATE membership SET role = 'user' WHERE user_id = 'sem' AND org_id = '{org_id}'")
        after = sem.get(path, headers={"if-none-match": before.headers["etag"]})
        assert (after.status_code, after.json()["role"], after.json()["version"]) == (200, "user", 1)
        # The version is what a change is guarded by, whoever looked at it.
        assert root.delete(path, headers={"if-match": before.headers["etag"]}).status_code == 204


def test_concurrent_requests_with_one_key_and_two_bodies_each_get_their_own_answer(site: Site, org_id: str) -> None:
    def change(number: int) -> tuple[int, str]:
        answer = patch(site, org_id, [("idempotency-key", f"both-{org_id}")], domain=f"both{number}.com")
        return answer.status_code, answer.json().get("domain", answer.json().get("type"))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(change, range(2))
    assert sorted([first[0], second[0]]) == [200, 422]
    rejected = "urn:orgs:problem:command-id-reused"
    assert (first, second) in (
        ((200, "both0.com"), (422, rejected)),
        ((422, rejected), (200, "both1.com")),
    )


async def test_concurrent_commands_with_one_id_and_two_payloads_each_get_their_own_answer(site: Site) -> None:
    kafka = site.settings.kafka
    org_id = UUID(site.create(f"Two payloads {uuid4()}"))
    async with OrganizationClient(
        bootstrap_servers=kafka.bootstrap_servers, topics=kafka.topics, source="/tests", actor="root"
    ) as orgs:
        for number in range(10):
            command_id = uuid4()
            first, second, again = await asyncio.gather(
                orgs.update(org_id, domain=f"first{number}.com", command_id=command_id),
                orgs.update(org_id, domain=f"second{number}.com", command_id=command_id),
                orgs.update(org_id, domain=f"first{number}.com", command_id=command_id),
            )
            assert (first.code, second.code, again.code) == (200, 422, 200)
            assert first.organization is not None
            assert again.organization == first.organization
            assert first.organization.domain == f"first{number}.com"
            assert second.problem is not None
            assert second.problem.type == "urn:orgs:problem:command-id-reused"
