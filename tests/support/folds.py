"""Folds: what a subscriber of `orgs.state` has in the end, against the tables and the oracle."""

from datetime import datetime
from typing import Any

import orjson

from tests.support.field_rules import ADDRESS_FIELDS, name_key
from tests.support.findings import Findings
from tests.support.observed import Observed
from tests.support.oracle import Oracle, View

MEMBERS = (
    "id", "name", "domain", "created_at", "updated_at", "primary_address", "deactivated", "deactivated_at", "version"
)  # fmt: skip
"""Of a published organization."""


def view(organization: str | dict[str, Any] | None) -> View | None:
    """A published organization without its times, as the oracle knows it."""
    if isinstance(organization, str):
        organization = orjson.loads(organization)
    if organization is None:
        return None
    assert isinstance(organization, dict)
    return {
        "id": organization["id"],
        "name": organization["name"],
        "domain": organization["domain"],
        "primary_address": whole_address(organization["primary_address"]),
        "deactivated": organization["deactivated"],
        "version": organization["version"],
    }


def whole_address(address: dict[str, Any] | None) -> dict[str, Any] | None:
    """An address with its optional members, null where they were left out."""
    return None if address is None else {member: address.get(member) for member in ADDRESS_FIELDS}


def check_state(observed: Observed, oracle: Oracle, findings: Findings) -> None:
    """`orgs.state` folds to the oracle's organizations."""
    folded: dict[str, dict[str, Any] | None] = {}
    for record in observed.state:
        org_id = (record.key or b"").decode()
        organization = orjson.loads(record.value) if record.value else None
        folded[org_id] = organization
        if organization is None:
            continue
        if set(organization) != set(MEMBERS) or organization["id"] != org_id:
            findings.add("a state record is malformed", f"{org_id}: {organization}")
        if organization["deactivated"] != (organization["deactivated_at"] is not None):
            findings.add("deactivated and deactivated_at disagree", f"{org_id}: {organization}")
    wanted = oracle.state()
    for org_id in folded.keys() | wanted.keys():
        found = view(folded.get(org_id))
        if found != wanted.get(org_id):
            findings.add("the state topic does not fold to the oracle's", f"{found}, should be {wanted.get(org_id)}")
    _compare_with_table(observed, {org_id: last for org_id, last in folded.items() if last is not None}, findings)


def _compare_with_table(observed: Observed, folded: dict[str, dict[str, Any]], findings: Findings) -> None:
    """Times included: the topic and the table are the same organizations."""
    present = {org_id: row for org_id, row in observed.organizations.items() if row["deleted_at"] is None}
    for org_id in folded.keys() | present.keys():
        state, row = folded.get(org_id), present.get(org_id)
        if state is None or row is None:
            where = "the table" if state is None else "the topic"
            findings.add("state topic and table hold other organizations", f"{org_id} is only in {where}")
            continue
        for column in ("created_at", "updated_at", "deactivated_at"):
            time = datetime.fromisoformat(state[column]) if state[column] is not None else None
            if time != row[column]:
                findings.add("state topic and table have other times", f"{org_id} {column}: {time}, {row[column]}")


def check_tables(observed: Observed, oracle: Oracle, findings: Findings) -> None:
    """The table holds the oracle's organizations, deleted ones included."""
    for org_id in observed.organizations.keys() | oracle.organizations.keys():
        row, wanted = observed.organizations.get(org_id), oracle.organizations.get(org_id)
        if row is None or wanted is None:
            findings.add("the table holds other organizations than the oracle", org_id)
            continue
        found = (
            row["name"],
            row["name_key"],
            row["domain"],
            whole_address(orjson.loads(row["primary_address"] or "null")),
            row["deactivated_at"] is not None,
            row["deleted_at"] is not None,
            row["version"],
        )
        should = (
            wanted.name,
            None if wanted.deleted else name_key(wanted.name),
            wanted.domain,
            wanted.primary_address,
            wanted.deactivated,
            wanted.deleted,
            wanted.version,
        )
        if found != should:
            findings.add("a row is not the oracle's", f"{org_id}: {found}, should be {should}")
