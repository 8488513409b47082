"""Reading records of the reference topics: what is a fact, what takes one back, what can't be read."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org_events.commands import PAYLOAD_BYTES_MAX
from org_events.reference import Membership, Role
from org_events.topics import Topics
from org_service.domain.requests import SetAside, Unreadable
from org_service.wire.facts import Fact, map_kinds, read_fact
from org_service.wire.parked import keep_record
from tests.support.records import FakeRecord

ORG = "0b5c6f0e-0000-4000-8000-00000000000a"
PARTNER = "11111111-1111-4111-8111-111111111111"
KINDS = map_kinds(Topics("t."))
MEMBERSHIP = {"user_id": "ann", "org_id": ORG, "role": "admin", "joined_at": "2024-05-17T11:30:00+02:00"}
JOINED = datetime(2024, 5, 17, 9, 30, tzinfo=UTC)


def read(topic: str, key: bytes | None, value: Any) -> Fact | Unreadable:
    body = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    return read_fact(KINDS[f"t.orgs.{topic}"], FakeRecord(key, body, [], topic=f"t.orgs.{topic}"))


def fact(topic: str, key: bytes, value: Any) -> Fact:
    found = read(topic, key, value)
    assert isinstance(found, Fact), found
    return found


KEY = f"ann:{ORG}".encode()


def test_a_membership() -> None:
    found = fact("memberships", KEY, MEMBERSHIP)
    assert found.key == ("ann", UUID(ORG))
    assert found.row == ("ann", UUID(ORG), "admin", JOINED, True)
    assert fact("memberships", KEY, MEMBERSHIP | {"active": False, "team": "\0"}).row == (
        *("ann", UUID(ORG), "admin", JOINED),
        False,
    )


def test_a_partnership_and_a_member_of_staff() -> None:
    ids = {"partner_org_id": PARTNER, "org_id": ORG}
    key = f"{PARTNER}:{ORG}".encode()
    assert fact("partnerships", key, ids).row == (UUID(PARTNER), UUID(ORG), "cloud_rep")
    assert fact("partnerships", key, ids | {"role": "support"}).row == (UUID(PARTNER), UUID(ORG), "support")
    assert fact("staff", b"sue", {"user_id": "sue"}).row == ("sue",)


def test_a_user_id_may_hold_colons() -> None:
    key = f"idp:7:ann:{ORG}".encode()
    assert fact("memberships", key, MEMBERSHIP | {"user_id": "idp:7:ann"}).key == ("idp:7:ann", UUID(ORG))
    assert fact("memberships", key, None).key == ("idp:7:ann", UUID(ORG))


def test_a_tombstone_removes_the_fact_of_its_key() -> None:
    assert fact("memberships", KEY, None)[2:] == (("ann", UUID(ORG)), None)
    assert fact("partnerships", f"{PARTNER}:{ORG}".encode(), None)[2:] == ((UUID(PARTNER), UUID(ORG)), None)
    assert fact("staff", b"sue", None)[2:] == (("sue",), None)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (KEY, b"", "json_invalid"),
        (KEY, b"{", "json_invalid"),
        (KEY, b"\xff", "json_invalid"),
        (KEY, b"[" * 60_000, "json_invalid"),
        (KEY, b"null", "model_type"),
        (KEY, b" " * (PAYLOAD_BYTES_MAX + 1), "65537 bytes"),
        (KEY, {}, "user_id: missing; org_id: missing; role: missing; joined_at: missing"),
        (KEY, MEMBERSHIP | {"role": "boss"}, "role: enum"),
        (KEY, MEMBERSHIP | {"role": None}, "role: enum"),
        (KEY, MEMBERSHIP | {"user_id": "an\0n"}, "user_id: string_pattern_mismatch"),
        (KEY, MEMBERSHIP | {"user_id": "ann\n"}, "user_id: string_pattern_mismatch"),
        (KEY, MEMBERSHIP | {"user_id": "änn"}, "user_id: string_pattern_mismatch"),
        (KEY, MEMBERSHIP | {"user_id": "a" * 201}, "user_id: string_too_long"),
        (KEY, MEMBERSHIP | {"org_id": 7}, "org_id: uuid_type"),
        (KEY, MEMBERSHIP | {"joined_at": 1_700_000_000}, "joined_at: datetime_type"),
        (KEY, MEMBERSHIP | {"joined_at": "2024-05-17T11:30:00"}, "joined_at: timezone_aware"),
        (KEY, MEMBERSHIP | {"active": "true"}, "active: bool_type"),
        (None, MEMBERSHIP, "the key is not user_id:org_id of the value"),
        (b"", MEMBERSHIP, "the key is not user_id:org_id of the value"),
        (KEY.upper(), MEMBERSHIP, "the key is not user_id:org_id of the value"),
        (f"bob:{ORG}".encode(), MEMBERSHIP, "the key is not user_id:org_id of the value"),
        (None, None, "a tombstone's key: the key must be user_id:org_id"),
        (b"ann", None, "a tombstone's key: the key must be user_id:org_id"),
        (b"\xff:" + ORG.encode(), None, "a tombstone's key: the key is not ASCII"),
        (b"ann:acme", None, "a tombstone's key: org_id is not a UUID of 36 lower-case characters"),
        (b"ann:None", None, "a tombstone's key: org_id is not a UUID of 36 lower-case characters"),
        (f"ann:{ORG.upper()}".encode(), None, "a tombstone's key: org_id is not a UUID of 36 lower-case characters"),
        (f"ann:{ORG.replace('-', '')}".encode(), None, "a tombstone's key: org_id is not a UUID"),
        (f":{ORG}".encode(), None, "a tombstone's key: user_id: string_too_short"),
        (f"a n:{ORG}".encode(), None, "a tombstone's key: user_id: string_pattern_mismatch"),
    ],
)
def test_an_unreadable_record_is_explained_without_quoting_it(key: bytes | None, value: Any, says: str) -> None:
    found = read("memberships", key, value)
    assert isinstance(found, Unreadable)
    assert found.reason == "unreadable"
    assert found.detail.startswith(("the value has", "the key", "a tombstone", says))
    assert says in found.detail
    assert "boss" not in found.detail


@given(key=st.none() | st.binary(max_size=80), value=st.none() | st.binary(max_size=200))
def test_no_bytes_make_it_raise(key: bytes | None, value: bytes | None) -> None:
    for topic in ("memberships", "partnerships", "staff"):
        read(topic, key, value)


@given(
    user_id=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200),
    org_id=st.uuids(),
    role=st.sampled_from(Role),
    joined_at=st.datetimes(timezones=st.just(UTC)),
    active=st.booleans(),
)
def test_whatever_the_contract_writes_is_read(
    user_id: str, org_id: UUID, role: Role, joined_at: datetime, active: bool
) -> None:
    written = Membership(user_id=user_id, org_id=org_id, role=role, joined_at=joined_at, active=active)
    found = fact("memberships", written.key(), written.to_body())
    assert found.row == (user_id, org_id, role, joined_at, active)
    assert fact("memberships", written.key(), None).key == (user_id, org_id)


def test_a_parked_record_is_kept_byte_for_byte_whatever_time_it_claims() -> None:
    for timestamp, year in ((-1, 1970), (2**62, 9999)):
        record = FakeRecord(None, b"\xff", [("h", b"\xfe"), ("n", None)], 4, 17, "t.orgs.staff", timestamp)
        row = keep_record(SetAside(Unreadable(record, "why")))
        assert (row.topic, row.partition, row.offset, row.key, row.value) == ("t.orgs.staff", 4, 17, None, b"\xff")
        assert row.headers == '[["h","/g=="],["n",null]]'
        assert (row.org_id, row.command_id, row.reason, row.detail) == (None, None, "unreadable", "why")
        assert row.broker_time.year == year
