"""Lists, single organizations, histories and commands, over the wire."""

import re
from uuid import uuid4

import httpx2
import pytest

from tests.support.edge import Site

pytestmark = pytest.mark.integration

ADDRESS = {
    "line1": "Karl Johans gate 1",
    "line2": None,
    "city": "Oslo",
    "region": None,
    "postal_code": "0154",
    "country": "NO",
}


@pytest.fixture(scope="module")
def five(site: Site) -> list[str]:
    """Five organizations of `lea`, who joined them in this order."""
    made = [site.create(f"Reading {letter}", domain=f"reading-{letter}.com") for letter in "edcba"]
    for org_id, role in zip(made, ("admin", "user", "support", "user", "restricted_user"), strict=True):
        site.member("lea", org_id, role)
    return made


def names(response: httpx2.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [organization["name"] for organization in response.json()["organizations"]]


def test_a_list_says_what_the_caller_is_in_each_organization(site: Site, five: list[str]) -> None:
    with site.client("lea") as lea:
        listed = lea.get("/v1/orgs").json()
    assert listed["next"] is None
    assert [entry["name"] for entry in listed["organizations"]] == [f"Reading {letter}" for letter in "abcde"]
    assert listed["organizations"][4] == {
        "id": five[0],
        "name": "Reading e",
        "domain": "reading-e.com",
        "deactivated": False,
        "role": "admin",
        "access": "direct",
        "is_default": True,
        "denied_actions": [],
    }
    assert [entry["is_default"] for entry in listed["organizations"]] == [False, False, False, False, True]
    assert "Organization:update" in listed["organizations"][3]["denied_actions"]


@pytest.mark.parametrize(
    ("query", "letters"),
    [
        ("order_by=-name", "edcba"),
        ("order_by=created_at", "edcba"),
        ("order_by=-created_at&limit=2", "ab"),
        ("search=READING%20c", "c"),
        ("search=reading-d.c", "d"),
        ("search=nothing", ""),
        ("search=", "abcde"),
        ("access=direct", "abcde"),
        ("access=partnership", ""),
    ],
)
def test_a_list_is_ordered_searched_and_filtered(site: Site, five: list[str], query: str, letters: str) -> None:
    with site.client("lea") as lea:
        assert names(lea.get(f"/v1/orgs?{query}")) == [f"Reading {letter}" for letter in letters]


@pytest.mark.parametrize("order_by", ["name", "-name", "created_at", "-created_at"])
def test_pages_follow_each_other_without_a_hole(site: Site, five: list[str], order_by: str) -> None:
    with site.client("lea") as lea:
        whole = names(lea.get(f"/v1/orgs?order_by={order_by}"))
        found: list[str] = []
        url = f"/v1/orgs?order_by={order_by}&limit=2&search=reading"
        pages = 0
        while url:
            page = lea.get(url)
            found += names(page)
            url = page.links["next"]["url"] if "next" in page.links else ""
            assert bool(url) == (page.json()["next"] is not None)
            pages += 1
    assert found == whole
    assert pages == 3


def test_staff_see_every_organization_as_admin(site: Site, five: list[str]) -> None:
    with site.client("root") as root:
        listed = root.get("/v1/orgs?search=Reading%20a").json()["organizations"]
    assert [(entry["role"], entry["access"], entry["is_default"]) for entry in listed] == [("admin", "staff", False)]


def test_members_of_a_partner_see_its_clients(site: Site) -> None:
    partner, client = site.create("Reading partner"), site.create("Reading client")
    site.member("pam", partner)
    site.execute(
        f"INSERT INTO partnership (partner_org_id, org_id, role) VALUES ('{partner}', '{client}', 'cloud_rep')"
    )
    with site.client("pam") as pam:
        seen = pam.get(f"/v1/orgs/{client}").json()
    assert (seen["role"], seen["access"]) == ("cloud_rep", "partnership")
    assert "Organization:delete" in seen["denied_actions"]


def test_an_organization_is_shown_whole(site: Site) -> None:
    org_id = site.create("Reading whole", domain="whole.com", primary_address=ADDRESS)
    site.member("wim", org_id, "user")
    with site.client("wim") as wim:
        response = wim.get(f"/v1/orgs/{org_id}")
    seen = response.json()
    assert re.fullmatch('"v1-[0-9a-f]{8}"', response.headers["etag"])
    assert response.headers["vary"] == "Authorization"
    assert response.headers["cache-control"] == "private, no-cache"
    created_at = seen.pop("created_at")
    assert seen.pop("updated_at") == created_at
    assert seen.pop("denied_actions")[0] == "Organization:create"
    assert seen == {
        "id": org_id,
        "name": "Reading whole",
        "domain": "whole.com",
        "primary_address": ADDRESS,
        "deactivated": False,
        "deactivated_at": None,
        "version": 1,
        "role": "user",
        "access": "direct",
    }


@pytest.mark.parametrize(
    ("if_none_match", "status"),
    [("{}", 304), ("W/{}", 304), ("*", 304), ('"v2", {}', 304), ('"v2"', 200), ('"v1"', 200)],
)
def test_a_current_copy_of_the_client_is_answered_with_304(
    site: Site, five: list[str], if_none_match: str, status: int
) -> None:
    with site.client("lea") as lea:
        etag = lea.get(f"/v1/orgs/{five[0]}").headers["etag"]
        response = lea.get(f"/v1/orgs/{five[0]}", headers={"if-none-match": if_none_match.replace("{}", etag)})
    assert (response.status_code, response.headers["etag"]) == (status, etag)
    assert bool(response.content) == (status == 200)


def test_head_is_get_without_the_body(site: Site, five: list[str]) -> None:
    with site.client("lea") as lea:
        got, headed = lea.get(f"/v1/orgs/{five[0]}"), lea.head(f"/v1/orgs/{five[0]}")
    assert (headed.status_code, headed.content) == (200, b"")
    for name in ("etag", "content-length", "content-type"):
        assert headed.headers[name] == got.headers[name]


def test_a_history_is_read_page_by_page(site: Site) -> None:
    org_id = site.create("Reading history")
    site.member("hal", org_id)
    with site.client("hal") as hal:
        for change in ({"domain": "history.com"}, {"name": "Reading history 2"}, {"domain": None}):
            assert hal.patch(f"/v1/orgs/{org_id}", json=change).status_code == 200
        first = hal.get(f"/v1/orgs/{org_id}/history?limit=3")
        second = hal.get(first.links["next"]["url"])
    assert [change["version"] for change in first.json()["changes"]] == [1, 2, 3]
    assert first.json()["next"] == 3
    assert (second.json()["next"], "next" in second.links) == (None, False)
    (last,) = second.json()["changes"]
    assert (last["version"], last["type"], last["changed"], last["actor"]) == (4, "org.updated", ["domain"], "hal")
    assert (last["before"]["domain"], last["after"]["domain"]) == ("history.com", None)
    assert first.json()["changes"][0]["before"] is None
    assert first.json()["changes"][0]["actor"] == "root"


def test_a_missing_and_an_invisible_organization_cannot_be_told_apart(site: Site, five: list[str]) -> None:
    org_id = site.create("Reading secret")
    deleted = site.create("Reading deleted")
    with site.client("root") as root:
        assert root.delete(f"/v1/orgs/{deleted}").status_code == 204
    with site.client("lea") as lea:
        for suffix in ("", "/history"):
            answers = [lea.get(f"/v1/orgs/{each}{suffix}") for each in (uuid4(), org_id, deleted, "no-id")]
            assert {answer.status_code for answer in answers} == {404}
            assert len({answer.content for answer in answers}) == 1
            assert len({_without_id(answer) for answer in answers}) == 1
        for method, suffix in (("DELETE", ""), ("POST", "/deactivate"), ("POST", "/reactivate"), ("POST", "/restore")):
            answers = [lea.request(method, f"/v1/orgs/{each}{suffix}") for each in (uuid4(), org_id, deleted, "no-id")]
            assert {answer.status_code for answer in answers} == {404}
            assert len({answer.content for answer in answers}) == 1
            assert len({_without_id(answer) for answer in answers}) == 1
        answers = [lea.patch(f"/v1/orgs/{each}", json={"domain": "?"}) for each in (uuid4(), org_id, deleted)]
        assert len({answer.content for answer in answers}) == 1


def _without_id(answer: httpx2.Response) -> tuple[tuple[str, str], ...]:
    return tuple(
        sorted((name, content) for name, content in answer.headers.items() if name not in ("x-request-id", "date"))
    )


def test_only_its_actor_and_staff_see_what_became_of_a_command(site: Site) -> None:
    org_id = site.create("Reading commands")
    site.member("cas", org_id)
    site.member("cy", org_id)
    with site.client("cas") as cas, site.client("cy") as cy, site.client("root") as root:
        cas.patch(f"/v1/orgs/{org_id}", json={"domain": "commands.com"})
        command_id = cas.get(f"/v1/orgs/{org_id}/history").json()["changes"][1]["command_id"]
        told = cas.get(f"/v1/commands/{command_id}").json()
        assert root.get(f"/v1/commands/{command_id}").json() == told
        others = cy.get(f"/v1/commands/{command_id}")
        missing = cy.get(f"/v1/commands/{uuid4()}")
        assert cy.get("/v1/commands/no-id").content == missing.content
    assert (others.status_code, others.content) == (404, missing.content)
    assert others.json()["type"] == "urn:orgs:problem:no-such-command"
    assert told["organization"]["domain"] == "commands.com"
    told.pop("organization")
    assert told.pop("position") > 0
    assert told == {
        "command_id": command_id,
        "status": "applied",
        "code": 200,
        "org_id": org_id,
        "version": 2,
        "changed": ["domain"],
        "problem": None,
    }


def test_a_command_that_kafka_lost_is_expired_for_its_actor(site: Site) -> None:
    command_id, org_id, topic_id = uuid4(), uuid4(), uuid4()
    site.execute(
        'INSERT INTO accepted_command (command_id, actor, org_id, accepted_at, partition, "offset")'
        " VALUES ($1, 'exa', $2, now(), 2, 900001)",
        command_id,
        org_id,
    )
    with site.client("exa") as exa, site.client("exo") as exo:
        assert exa.get(f"/v1/commands/{command_id}").json()["status"] == "pending"
        site.execute(
            "INSERT INTO lost_range (topic, topic_id, partition, from_offset, to_offset, why, noticed_at)"
            " VALUES ('c', $1, 2, 900000, 900002, 'expired', now())",
            topic_id,
        )
        told = exa.get(f"/v1/commands/{command_id}")
        assert exo.get(f"/v1/commands/{command_id}").status_code == 404
    assert told.status_code == 200
    content = told.json()
    problem = content.pop("problem")
    assert content == {
        "command_id": str(command_id),
        "status": "expired",
        "code": None,
        "org_id": str(org_id),
        "version": None,
        "position": None,
        "organization": None,
        "changed": None,
    }
    assert (problem["type"], problem["status"]) == ("urn:orgs:problem:command-expired", 410)
    assert "Send the same request again" in problem["detail"]
    assert "retry-after" not in told.headers
