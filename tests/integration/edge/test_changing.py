"""Changes over the wire: outcomes, preconditions, repetition, waiting."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx2
import pytest

from tests.support.edge import Site
from tests.support.topics import read_topic

pytestmark = pytest.mark.integration


@pytest.fixture
def org_id(site: Site) -> str:
    """An organization of version 1, with `ada` as admin and `uwe` as user."""
    made = site.create(f"Changing {uuid4()}")
    site.member("ada", made, "admin")
    site.member("uwe", made, "user")
    return made


def versions(site: Site, org_id: str) -> list[int]:
    with site.client("root") as root:
        return [change["version"] for change in root.get(f"/v1/orgs/{org_id}/history").json()["changes"]]


def test_the_whole_life_of_an_organization(site: Site) -> None:
    chosen = str(uuid4())
    name = f"Life {chosen}"
    with site.client("root") as root:
        made = root.post("/v1/orgs", json={"id": chosen.upper(), "name": name, "domain": "life.com"})
        assert (made.status_code, made.headers["location"], made.headers["etag"]) == (201, f"/v1/orgs/{chosen}", '"v1"')
        assert (made.json()["id"], made.json()["domain"], made.json()["version"]) == (chosen, "life.com", 1)
        changed = root.patch(f"/v1/orgs/{chosen}", json={"domain": None})
        assert (changed.status_code, changed.headers["etag"], changed.json()["domain"]) == (200, '"v2"', None)
        unchanged = root.patch(
            f"/v1/orgs/{chosen}", content=b'{"name": "%b"}' % name.encode(),
            headers={"content-type": "application/merge-patch+json"},
        )  # fmt: skip
        assert (unchanged.status_code, unchanged.headers["etag"]) == (200, '"v2"')
        for verb, version, deactivated in (("deactivate", 3, True), ("deactivate", 3, True), ("reactivate", 4, False)):
            answer = root.post(f"/v1/orgs/{chosen}/{verb}")
            assert answer.status_code == 200
            assert (answer.json()["version"], answer.json()["deactivated"]) == (version, deactivated)
        gone = root.delete(f"/v1/orgs/{chosen}")
        assert (gone.status_code, gone.content) == (204, b"")
        assert root.get(f"/v1/orgs/{chosen}").status_code == 404
        restored = root.post(f"/v1/orgs/{chosen}/restore")
        assert (restored.status_code, restored.headers["etag"]) == (200, '"v6"')
        assert root.get(f"/v1/orgs/{chosen}").json()["name"] == name


def test_what_was_written_is_read_at_once(site: Site, org_id: str) -> None:
    with site.client("ada") as ada:
        for number in range(10):
            changed = ada.patch(f"/v1/orgs/{org_id}", json={"domain": f"d{number}.com"})
            seen = ada.get(f"/v1/orgs/{org_id}")
            assert seen.json()["domain"] == f"d{number}.com"
            assert seen.headers["etag"].startswith(changed.headers["etag"][:-1] + "-")


def test_a_change_by_if_match_goes_through_once(site: Site, org_id: str) -> None:
    with site.client("ada") as ada:
        first = ada.patch(f"/v1/orgs/{org_id}", json={"domain": "one.com"}, headers={"if-match": '"v1"'})
        second = ada.patch(f"/v1/orgs/{org_id}", json={"domain": "two.com"}, headers={"if-match": '"v1"'})
    assert (first.status_code, second.status_code) == (200, 412)
    assert second.json()["type"] == "urn:orgs:problem:precondition-failed"
    assert second.json()["detail"] == "If-Match does not name version 2, which the organization has."
    assert versions(site, org_id) == [1, 2]


@pytest.mark.parametrize(
    ("if_match", "status"),
    [("*", 200), ('"v9", "v1"', 200), ('"v8", "v9"', 412), ('W/"v1"', 412), ('"1"', 412), ("v1", 400)],
)
def test_if_match_lists_versions(site: Site, org_id: str, if_match: str, status: int) -> None:
    with site.client("ada") as ada:
        answer = ada.patch(f"/v1/orgs/{org_id}", json={"domain": "match.com"}, headers={"if-match": if_match})
        deleted = ada.delete(f"/v1/orgs/{org_id}", headers={"if-match": '"v5"'})
    assert (answer.status_code, deleted.status_code) == (status, 412)


def test_a_missing_permission_is_reported_before_any_precondition(site: Site, org_id: str) -> None:
    with site.client("uwe") as uwe, site.client("nobody") as nobody:
        rejected = uwe.patch(f"/v1/orgs/{org_id}", json={"domain": "?"}, headers={"if-match": '"v7"'})
        unseen = nobody.patch(f"/v1/orgs/{org_id}", json={"domain": "?"}, headers={"if-match": '"v7"'})
    assert (rejected.status_code, rejected.json()["type"]) == (403, "urn:orgs:problem:forbidden")
    assert (unseen.status_code, unseen.json()["type"]) == (404, "urn:orgs:problem:not-found")


def test_preconditions_in_the_body_are_conflicts(site: Site, org_id: str) -> None:
    with site.client("ada") as ada:
        by_version = ada.patch(f"/v1/orgs/{org_id}", json={"domain": "a.com", "expected_version": 7})
        by_value = ada.patch(
            f"/v1/orgs/{org_id}", json={"domain": "a.com", "if_current": {"domain": "b.com"}},
            headers={"if-match": '"v1"'},
        )  # fmt: skip
        bare = ada.post(f"/v1/orgs/{org_id}/deactivate", json={"expected_version": 7})
        good = ada.post(f"/v1/orgs/{org_id}/deactivate", json={"expected_version": 1})
    assert [each.status_code for each in (by_version, by_value, bare, good)] == [409, 409, 409, 200]


def test_a_repeated_request_gets_the_first_answer_again(site: Site, org_id: str) -> None:
    headers = {"idempotency-key": "repeat-1"}
    with site.client("ada") as ada:
        first = ada.patch(f"/v1/orgs/{org_id}", json={"domain": "one.com"}, headers=headers)
        ada.patch(f"/v1/orgs/{org_id}", json={"domain": "two.com"})
        again = ada.patch(f"/v1/orgs/{org_id}", content=b'{ "domain" : "one.com" }', headers={
            "idempotency-key": '"repeat-1"', "content-type": "application/json",
        })  # fmt: skip
        assert ada.get(f"/v1/orgs/{org_id}").json()["domain"] == "two.com"
    assert (again.status_code, again.content, again.headers["etag"]) == (200, first.content, '"v2"')
    assert versions(site, org_id) == [1, 2, 3]


def test_a_repeated_request_gets_the_same_rejection(site: Site, org_id: str) -> None:
    headers = {"idempotency-key": "rejected-1", "if-match": '"v2"'}
    with site.client("ada") as ada:
        first = ada.patch(f"/v1/orgs/{org_id}", json={"domain": "one.com"}, headers=headers)
        ada.patch(f"/v1/orgs/{org_id}", json={"domain": "two.com"})
        again = ada.patch(f"/v1/orgs/{org_id}", json={"domain": "one.com"}, headers=headers)
    assert (first.status_code, again.status_code, again.content) == (412, 412, first.content)


def test_a_key_belongs_to_one_request_of_one_actor(site: Site, org_id: str) -> None:
    headers = {"idempotency-key": "one-request"}
    with site.client("ada") as ada, site.client("root") as root:
        assert ada.patch(f"/v1/orgs/{org_id}", json={"domain": "one.com"}, headers=headers).status_code == 200
        others = [
            ada.patch(f"/v1/orgs/{org_id}", json={"domain": "two.com"}, headers=headers),
            ada.patch(f"/v1/orgs/{uuid4()}", json={"domain": "one.com"}, headers=headers),
            ada.patch(f"/v1/orgs/{org_id}", json={"domain": "one.com"}, headers={**headers, "if-match": '"v2"'}),
            ada.delete(f"/v1/orgs/{org_id}", headers=headers),
        ]
        assert root.patch(f"/v1/orgs/{org_id}", json={"domain": "root.com"}, headers=headers).status_code == 200
    assert {each.status_code for each in others} == {422}
    assert {each.json()["type"] for each in others} == {"urn:orgs:problem:command-id-reused"}
    assert versions(site, org_id) == [1, 2, 3]


def test_a_repeated_creation_makes_one_organization(site: Site) -> None:
    body = {"name": f"Once {uuid4()}"}
    headers = {"idempotency-key": f"create-{uuid4()}"}
    with site.client("root") as root:
        first, again = (root.post("/v1/orgs", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.content, again.headers["location"]) == (first.content, first.headers["location"])


def test_a_repetition_with_several_versions_is_the_same_request(site: Site, org_id: str) -> None:
    headers = {"idempotency-key": "several", "if-match": '"v1", "v2"'}
    with site.client("ada") as ada:
        first, again = (ada.patch(f"/v1/orgs/{org_id}", json={"domain": "one.com"}, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
    assert versions(site, org_id) == [1, 2]


def test_many_concurrent_repetitions_are_one_change(site: Site, org_id: str) -> None:
    def change(_: int) -> httpx2.Response:
        with site.client("ada") as ada:
            return ada.patch(f"/v1/orgs/{org_id}", json={"domain": "once.com"}, headers={"idempotency-key": "at-once"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(change, range(8)))
    assert {each.status_code for each in answers} == {200}
    assert len({each.content for each in answers}) == 1
    assert versions(site, org_id) == [1, 2]


def test_concurrent_requests_with_one_key_are_one_change_and_the_rest_are_rejected(site: Site, org_id: str) -> None:
    def change(number: int) -> tuple[int, int, str]:
        with site.client("ada") as ada:
            answer = ada.patch(
                f"/v1/orgs/{org_id}", json={"domain": f"d{number}.com"}, headers={"idempotency-key": "mixed"}
            )
        return number, answer.status_code, answer.json().get("domain", "")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(change, range(8)))
    (done,) = [answer for answer in answers if answer[1] == 200]
    assert done[2] == f"d{done[0]}.com"
    assert [answer[1] for answer in answers if answer is not done] == [422] * 7
    assert versions(site, org_id) == [1, 2]


def follow(client: httpx2.Client, location: str) -> dict[str, object]:
    """Ask for a command until it is decided."""
    while True:
        told = client.get(location)
        assert told.status_code == 200
        if told.json()["status"] != "pending":
            assert "retry-after" not in told.headers
            return told.json()
        assert told.headers["retry-after"] == "1"


def test_an_asynchronous_request_gets_the_location_of_its_outcome(site: Site, org_id: str) -> None:
    with site.client("ada") as ada:
        for prefer in ("respond-async", "wait=0"):
            accepted = ada.patch(f"/v1/orgs/{org_id}", json={"domain": f"{prefer[:4]}.com"}, headers={"prefer": prefer})
            assert (accepted.status_code, accepted.headers["preference-applied"]) == (202, prefer)
            assert accepted.json()["status"] == "pending"
            told = follow(ada, accepted.headers["location"])
            assert (told["status"], told["code"]) == ("applied", 200)
        rejected = ada.patch(f"/v1/orgs/{org_id}", json={"domain": "?"}, headers={"prefer": "respond-async"})
        told = follow(ada, rejected.headers["location"])
    assert (told["status"], told["code"], told["organization"]) == ("rejected", 422, None)
    assert versions(site, org_id) == [1, 2, 3]


def test_a_wait_that_is_long_enough_gets_the_outcome(site: Site, org_id: str) -> None:
    with site.client("ada") as ada:
        answer = ada.patch(f"/v1/orgs/{org_id}", json={"domain": "w.com"}, headers={"prefer": "wait=9"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=9")


def test_a_trace_continues_in_the_event_and_the_request_id_is_returned(site: Site, org_id: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with site.client("ada") as ada:
        answer = ada.patch(
            f"/v1/orgs/{org_id}", json={"domain": "traced.com"}, headers={"traceparent": trace, "x-request-id": "r-1"}
        )
        strange = ada.get("/v1/orgs", headers={"x-request-id": "a b"})
    assert answer.headers["x-request-id"] == "r-1"
    assert re.fullmatch("[0-9a-f]{32}", strange.headers["x-request-id"])
    events = asyncio.run(read_topic(site.settings, site.settings.kafka.topics.events))
    traces = [
        dict(event.headers() or []).get("traceparent") for event in events if (event.key() or b"") == org_id.encode()
    ]
    assert traces == [None, trace.encode()]
