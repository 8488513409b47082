from uuid import UUID

import pytest

from org_events.publishing.client import OrganizationClient
from org_events.results import Result
from org_service.cli import shell
from tests.support.operating import ORG, OTHER, Orgs

pytestmark = pytest.mark.integration

ACME = ("send", "create", "--id", ORG, "--name", "Acme AS", "--domain", "acme.example", "--actor", "alice")
ADDRESS = ("--line1", "Storgata 1", "--city", "Oslo", "--country", "NO", "--postal-code", "0155")


@pytest.mark.usefixtures("running")
async def test_the_life_of_an_organization_is_shown_in_outcomes_and_history(orgs: Orgs) -> None:
    created = await orgs(*ACME, *ADDRESS)
    assert created.stdout.startswith("applied 200  v1  Acme AS · acme.example · Storgata 1, 0155, Oslo, NO\n")
    assert (await orgs("send", "update", ORG, "--clear", "domain", "--expected-version", "1")).stdout.startswith(
        "applied 200  v2"
    )
    unchanged = await orgs("send", "update", ORG, "--clear", "domain", "--json")
    assert (unchanged.json["outcome"], unchanged.json["version"]) == ("unchanged", 2)
    assert unchanged.json["organization"]["primary_address"]["postal_code"] == "0155"
    await orgs("send", "deactivate", ORG, "--if-null", "domain")
    await orgs("send", "reactivate", ORG)
    assert (await orgs("send", "delete", ORG, "--if-name", "Acme AS")).stdout.startswith("applied 200  v5\n")
    assert "state    deleted 20" in (await orgs("show", ORG)).stdout
    await orgs("send", "restore", ORG)

    shown = await orgs("show", "ACME as")
    assert shown.stdout.startswith(f"Acme AS\n  id       {ORG}\n  version  6\n  state    active\n  domain   null\n")
    assert (await orgs("show", ORG, "--json")).json["version"] == 6
    told = (await orgs("history", "Acme AS")).stdout.splitlines()
    assert [line.split()[3] for line in told] == [
        "created", "updated", "deactivated", "reactivated", "deleted", "restored",
    ]  # fmt: skip
    assert "name Acme AS · domain acme.example · primary_address Storgata 1, 0155, Oslo, NO  by alice" in told[0]
    assert f"domain acme.example → null  by {shell.login()}" in told[1]
    last = (await orgs("history", ORG, "-n", "2", "--json")).json_lines
    assert [(entry["version"], entry["event_type"]) for entry in last] == [(5, "org.deleted"), (6, "org.restored")]
    assert [(entry["recorded_at"][10], entry["recorded_at"][-1]) for entry in last] == [("T", "Z"), ("T", "Z")]
    left_out = await orgs("history", ORG, "-n", "2")
    assert "4 earlier changes omitted; --last shows more" in left_out.stderr
    assert len(left_out.stdout.splitlines()) == 2


@pytest.mark.usefixtures("running")
async def test_a_rejection_ends_with_1_and_says_why(orgs: Orgs) -> None:
    await orgs(*ACME)
    stale = await orgs("send", "update", ORG, "--name", "Late", "--expected-version", "7", code=1)
    assert stale.stdout.startswith("rejected 409  v1  A precondition does not hold: expected_version is 7")
    taken = await orgs("send", "create", "--name", "ACME as", "--json", code=1)
    assert taken.json["problem"]["type"] == "urn:orgs:problem:name-taken"
    other_domain = await orgs("send", "update", ORG, "--name", "Late", "--if-domain", "other.example", code=1)
    assert "if_current does not hold for: domain" in other_domain.stdout
    assert (await orgs("send", "delete", OTHER, code=1)).stdout.startswith("rejected 404")
    assert "no organization has" in (await orgs("show", "Nobody", code=1)).stderr


@pytest.mark.usefixtures("running")
async def test_the_same_command_id_gets_the_first_outcome_again(orgs: Orgs) -> None:
    retry = ("--command-id", OTHER)
    first = await orgs(*ACME, *retry, "--json")
    again = await orgs(*ACME, *retry, "--json")
    assert again.json == first.json
    assert again.json["version"] == 1
    reused = await orgs("send", "update", ORG, "--name", "Another", *retry, code=1)
    assert "belongs to another command" in reused.stdout


@pytest.mark.usefixtures("running")
async def test_a_create_that_names_no_id_may_be_sent_again_under_its_command_id(orgs: Orgs) -> None:
    first = await orgs("send", "create", "--name", "Acme", "--json")
    again = await orgs("send", "create", "--name", "Acme", "--command-id", first.json["command_id"], "--json")
    assert again.json == first.json
    other = await orgs("send", "create", "--name", "Other", "--json")
    assert other.json["org_id"] != first.json["org_id"]


async def test_without_a_worker_the_outcome_is_unknown_and_the_command_waits(orgs: Orgs) -> None:
    unknown = await orgs(*ACME, "--command-id", OTHER, "--timeout", "1", code=3)
    assert OTHER in unknown.stderr
    assert "Is a worker running?" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    sent = await orgs(*ACME, "--no-wait", "--json")
    assert sent.json["topic"] == orgs.settings.kafka.topics.commands
    plain = await orgs(*ACME, "--no-wait")
    assert plain.stdout.startswith("sent  command ")


async def test_a_command_that_was_stopped_says_how_to_learn_its_outcome(
    orgs: Orgs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[UUID] = []

    async def stopped_by_ctrl_c(_: OrganizationClient, command: object, *, command_id: UUID) -> Result:
        ids.append(command_id)
        raise KeyboardInterrupt

    monkeypatch.setattr(OrganizationClient, "execute", stopped_by_ctrl_c)
    stopped = await orgs("send", "update", ORG, "--name", "Acme", code=130)
    assert f"add --command-id {ids[0]}" in stopped.stderr


async def test_missing_topics_say_what_to_do(orgs: Orgs) -> None:
    elsewhere = {"ORGS_KAFKA__TOPIC_PREFIX": "nowhere."}
    assert (
        "run `orgs topics apply`"
        in (await orgs("tail", "events", "-n", "1", "--no-follow", code=1, **elsewhere)).stderr
    )
    assert "orgs topics apply" in (await orgs(*ACME, "--timeout", "8", code=1, **elsewhere)).stderr
