"""The contract breaks nobody who knows a released one; and the gate that says so finds what would."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from org_events.testing.usage import Manifest
from org_service.documentation.release import keep
from tests.contract.events.described import DOCUMENT
from tests.contract.events.gate import ACCEPTED, find_breaches, load_released, load_usage

pytestmark = pytest.mark.contract

RELEASED: dict[str, Any] = load_released()
SEARCH: Manifest = {
    "program": "search-index",
    "contract": "0.1.0",
    "reads": {
        "org.updated": {"body": ["after.name", "after.primary_address.city", "version"], "headers": ["ce_position"]},
        "organization": {"body": ["name"], "headers": []},
    },
    "sends": {},
}
MAILER: Manifest = {
    "program": "mailer",
    "contract": "0.1.0",
    "reads": {"org.updated": {"body": ["changed"], "headers": ["ce_actor"]}},
    "sends": {"org.update": ["expected_version", "org_id"]},
}


def test_the_contract_may_follow_every_release() -> None:
    accepted = json.loads(ACCEPTED.read_text())
    breaches = {breach.first_line(): breach for breach in find_breaches(RELEASED, DOCUMENT)}
    usage = load_usage()
    new = [breach.explain(usage) for line, breach in breaches.items() if line not in accepted]
    assert not new, "the contract breaks a released one:\n\n" + "\n\n".join(new)
    assert accepted.keys() <= breaches.keys(), "a breach that was accepted is none any more: take it off the list"


def components(document: Any) -> Any:
    return document["components"]["schemas"]


def message(document: Any, name: str) -> Any:
    return document["components"]["messages"][name]


EVERY_EVENT = "org.created, org.updated, org.deleted, org.deactivated, org.reactivated, org.restored, org.erased"

CHANGES: list[tuple[str, Callable[[Any], object], str, str]] = [
    # what, the change, the first line of one breach, whom it breaks
    (
        "a removed member",
        lambda d: (
            components(d)["Address-Output"]["properties"].pop("city"),
            components(d)["Address-Output"]["required"].remove("city"),
        ),
        f"orgs.events: after.primary_address.city in the body of {EVERY_EVENT} is gone",
        "search-index (reads after.primary_address.city of org.updated)",
    ),
    (
        "a member of an event that may be missing",
        lambda d: components(d)["OrganizationEvent"]["required"].remove("version"),
        f"orgs.events: version in the body of {EVERY_EVENT} may be missing",
        "search-index (reads version of org.updated)",
    ),
    (
        "a name that may be null",
        lambda d: components(d)["Organization"]["properties"].update(
            name={"anyOf": [{"type": "string"}, {"type": "null"}]}
        ),
        "orgs.state: name in the body of organization may be null",
        "search-index (reads name of organization)",
    ),
    (
        "a text that becomes a number",
        lambda d: components(d)["OrganizationEvent"]["properties"].update(
            changed={"type": "array", "items": {"type": "integer"}}
        ),
        f"orgs.events: changed[] in the body of {EVERY_EVENT} may be of type integer",
        "mailer (reads changed of org.updated)",
    ),
    (
        "a narrower enum of what others write",
        lambda d: components(d)["Role"]["enum"].remove("support"),
        'orgs.memberships: role in the body of membership may be "support"',
        "",
    ),
    (
        "a wider enum of what we write",
        lambda d: components(d)["Outcome"]["enum"].append("delayed"),
        'orgs.results: outcome in the body of org.result may be "delayed"',
        "",
    ),
    (
        "a narrower enum of what we write, which the topics hold still",
        lambda d: components(d)["Outcome"]["enum"].remove("parked"),
        'orgs.results: outcome in the body of org.result may be "parked"',
        "",
    ),
    (
        "a lower bound of what others write",
        lambda d: components(d)["UpdateOrganization"]["properties"]["expected_version"]["anyOf"][0].update(maximum=99),
        "orgs.commands: expected_version in the body of org.update may be a number above 99",
        "mailer (sends expected_version of org.update)",
    ),
    (
        "a member of a command that is now required",
        lambda d: components(d)["UpdateOrganization"]["required"].append("expected_version"),
        "orgs.commands: expected_version in the body of org.update may be missing",
        "mailer (sends expected_version of org.update)",
    ),
    (
        "a header that is gone",
        lambda d: message(d, "org.updated")["headers"]["properties"].pop("ce_actor"),
        "orgs.events: the header ce_actor of org.updated is gone",
        "mailer (reads ce_actor of org.updated)",
    ),
    (
        "a header with another value",
        lambda d: message(d, "org.updated")["headers"]["properties"]["ce_dataschema"].update(const="urn:x:2"),
        'orgs.events: the header ce_dataschema of org.updated may be "urn:x:2"',
        "",
    ),
    (
        "a header that publishers must send",
        lambda d: (
            message(d, "org.update")["headers"]["properties"].update(ce_tenant={"type": "string"}),
            message(d, "org.update")["headers"]["required"].append("ce_tenant"),
        ),
        "orgs.commands: the header ce_tenant of org.update is missing",
        "mailer (sends org.update)",
    ),
    (
        "another key",
        lambda d: message(d, "org.updated")["bindings"]["kafka"]["key"].update({"x-fields": ["position"]}),
        'orgs.events: the key of org.updated is {"type": "string", "format": "uuid", "x-fields": ["position"], '
        '"x-partitioner": "murmur2"}, was {"type": "string", "format": "uuid", "x-fields": ["org_id"], '
        '"x-partitioner": "murmur2"}',
        "search-index (reads org.updated); mailer (reads org.updated)",
    ),
    (
        "an event type that is gone",
        lambda d: d["channels"]["events"]["messages"].pop("org.updated"),
        "orgs.events: the type of org.updated is gone",
        "search-index (reads org.updated); mailer (reads org.updated)",
    ),
    (
        "a command that is gone",
        lambda d: d["channels"]["commands"]["messages"].pop("org.update"),
        "orgs.commands: the type of org.update is gone",
        "mailer (sends org.update)",
    ),
    (
        "a topic with another name",
        lambda d: d["channels"]["state"].update(address="orgs.current"),
        "orgs.state: the topic is now orgs.current",
        "search-index (reads organization)",
    ),
    (
        "a state that is no longer compacted",
        lambda d: d["channels"]["state"]["bindings"]["kafka"]["topicConfiguration"].update(
            {"cleanup.policy": ["delete"]}
        ),
        "orgs.state: cleanup.policy is ['delete'], was ['compact']",
        "search-index (reads organization)",
    ),
    (
        "events that are kept for less time",
        lambda d: d["channels"]["events"]["bindings"]["kafka"]["topicConfiguration"].update({"retention.ms": 1}),
        "orgs.events: retention.ms is 1, was 7776000000",
        "search-index (reads org.updated); mailer (reads org.updated)",
    ),
]


@pytest.mark.parametrize(("what", "change", "first_line", "known"), CHANGES, ids=[row[0] for row in CHANGES])
def test_the_gate_finds_a_breach_and_names_whom_it_breaks(
    what: str, change: Callable[[Any], object], first_line: str, known: str
) -> None:
    changed = deepcopy(DOCUMENT)
    change(changed)
    found = {breach.first_line(): breach for breach in find_breaches({"0.1.0": DOCUMENT}, changed)}
    assert first_line in found
    assert "; ".join(found[first_line].known([SEARCH, MAILER])) == known


def test_what_only_adds_is_no_breach() -> None:
    changed = deepcopy(DOCUMENT)
    for name in ("OrganizationEvent", "Organization", "Address-Output", "UpdateOrganization"):
        components(changed)[name]["properties"]["plan"] = {"type": "string"}
    message(changed, "org.updated")["headers"]["properties"]["ce_plan"] = {"type": "string"}
    changed["components"]["messages"]["org.merged"] = message(changed, "org.updated")
    changed["channels"]["events"]["messages"]["org.merged"] = {"$ref": "#/components/messages/org.merged"}
    components(changed)["Role"]["enum"].append("auditor")  # of what others write: more is accepted
    changed["channels"]["events"]["bindings"]["kafka"]["topicConfiguration"]["retention.ms"] = -1
    assert find_breaches({"0.1.0": DOCUMENT}, changed) == []


def test_old_releases_count_as_much_as_the_last() -> None:
    first = deepcopy(DOCUMENT)
    components(first)["Organization"]["properties"]["plan"] = {"type": "string"}
    breaches = find_breaches({"0.1.0": first, "0.2.0": DOCUMENT}, DOCUMENT)
    assert {(breach.path, breach.releases) for breach in breaches} == {
        ("plan", ("0.1.0",)),
        ("before.plan", ("0.1.0",)),
        ("after.plan", ("0.1.0",)),
        ("organization.plan", ("0.1.0",)),
    }


def test_a_breach_is_explained_in_words() -> None:
    changed = deepcopy(DOCUMENT)
    message(changed, "org.updated")["headers"]["properties"].pop("ce_actor")
    [breach] = find_breaches({"0.1.0": DOCUMENT, "0.2.0": DOCUMENT}, changed)
    assert breach.explain([SEARCH, MAILER]) == (
        "orgs.events: the header ce_actor of org.updated is gone\n"
        "  breaks:  subscribers built with 0.1.0, 0.2.0 don't expect that\n"
        "  known:   mailer (reads ce_actor of org.updated)\n"
        "  instead: go on writing it; put what replaces it beside it"
    )


def test_a_rule_that_the_gate_does_not_compare_stops_it() -> None:
    changed = deepcopy(DOCUMENT)
    components(changed)["Organization"]["properties"]["version"]["multipleOf"] = 2
    with pytest.raises(NotImplementedError, match="multipleOf"):
        find_breaches({"0.1.0": DOCUMENT}, changed)


def test_a_release_is_kept_once_and_never_changed(tmp_path: Path) -> None:
    for source in ("docs/asyncapi.json", "events/surface.txt", "events/org_events/testing/golden/latest.json"):
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / source).write_text("{}")
    keep(tmp_path, "0.9.0")
    keep(tmp_path, "0.9.0")
    (tmp_path / "docs/asyncapi.json").write_text('{"asyncapi": "3.0.0"}')
    with pytest.raises(SystemExit, match=r"raise the version in events/pyproject\.toml"):
        keep(tmp_path, "0.9.0")
    assert (tmp_path / "events/released/0.9.0/asyncapi.json").read_text() == "{}"
    assert (tmp_path / "events/org_events/testing/golden/0.9.0.json").read_text() == "{}"
