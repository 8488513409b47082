"""Which records are changes, by what is known."""

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from org_events import Organization
from org_events.subscribing import FIELDS, Change, Kind
from org_events.subscribing.filters import Filter
from org_events.subscribing.folding import (
    drop_left_behind,
    find_gone,
    fold_events,
    fold_states,
    read_versions,
)
from org_events.subscribing.parking import pack, unpack
from org_events.topics import partition_for
from tests.support.subscribing import FakeRecord, body, event, key_of, org, state


class Keeper:
    """Keeps nothing."""

    def transaction(self, *changes: Change[Any]) -> AbstractAsyncContextManager[Any]:
        raise NotImplementedError


KEEPER = Keeper()
ONE = key_of(1)


def events(*records: FakeRecord, known: dict[bytes, int] | None = None, whole: bool = True) -> list[Change[Any]]:
    return fold_events(read_versions(records), {} if known is None else known, KEEPER, whole=whole)


@pytest.mark.parametrize(
    ("known", "record", "whole", "kind"),
    [
        (0, event(1, 1), True, Kind.EVENT),
        (3, event(1, 4), True, Kind.EVENT),
        (3, event(1, 3), True, None),
        (3, event(1, 2), True, None),
        (-3, event(1, 3), True, None),
        (3, event(1, 5), True, Kind.HEALED),
        (0, event(1, 5), True, Kind.HEALED),
        (0, event(1, 5), False, Kind.EVENT),
        (-3, event(1, 4, event_type="org.restored", created=True), True, Kind.EVENT),
        (-3, event(1, 9, event_type="org.restored", created=True), True, Kind.EVENT),
        (-3, event(1, 9), True, Kind.HEALED),
        (0, event(1, 9, event_type="org.restored", created=True), True, Kind.EVENT),
        (3, event(1, 9, event_type="org.erased"), True, Kind.EVENT),
        (0, event(1, 9, event_type="org.erased"), True, Kind.EVENT),
    ],
)
def test_the_known_version_decides_on_an_event(known: int, record: FakeRecord, whole: bool, kind: Kind | None) -> None:
    found = events(record, known={ONE: known} if known else {}, whole=whole)
    assert [change.kind for change in found] == ([] if kind is None else [kind])


def test_what_is_known_follows_each_change() -> None:
    known: dict[bytes, int] = {}
    found = events(
        event(1, 1),
        event(2, 1),
        event(1, 2),
        event(1, 2),
        event(1, 3, event_type="org.deleted"),
        event(2, 2, event_type="org.closed", after=None),
        known=known,
    )
    assert [(change.key, change.version) for change in found] == [
        (ONE, 1),
        (key_of(2), 1),
        (ONE, 2),
        (ONE, 3),
        (key_of(2), 2),
    ]
    assert known == {ONE: -3, key_of(2): -2}


def test_a_state_that_is_not_newer_is_no_change() -> None:
    known = {ONE: 3, key_of(2): 3, key_of(3): 3}
    records = read_versions([state(1, 3), state(2, 4), state(3, 5, deleted=True), state(4, 9, deleted=True)])
    found = fold_states(records, known, KEEPER)
    assert [(change.kind, change.version, change.deletes()) for change in found] == [
        (Kind.LOADED, 4, False),
        (Kind.LOADED, 5, True),
    ]
    assert known == {ONE: 3, key_of(2): 4, key_of(3): -5, key_of(4): -9}


def test_what_a_load_did_not_meet_is_gone() -> None:
    found = find_gone({ONE: 3, key_of(2): 4, key_of(3): -5}, {ONE}, KEEPER)
    assert [(change.kind, change.org_id, change.version) for change in found] == [(Kind.GONE, org(2), 4)]
    assert found[0].deletes()
    assert found[0].after is found[0].before is None


def test_what_growth_left_behind_is_no_state() -> None:
    records = read_versions([state(number, 1) for number in range(40)])
    places = {each.key: partition_for(each.key, 6) for each in records}
    assert {each.key for each in drop_left_behind(records, 1, 6)} == {
        key for key, place in places.items() if place == 1
    }
    assert len(drop_left_behind(records, 4, 3)) == 40, "a new partition has its own records before the growth is over"


@pytest.mark.parametrize(
    "record",
    [
        FakeRecord(0, None, b"{}", [("ce_orgversion", b"1")]),
        FakeRecord(0, b"stranger", b"{}", [("ce_orgversion", b"1")]),
        FakeRecord(0, ONE, b"{}", []),
        FakeRecord(0, ONE, b"{}", [("ce_orgversion", None)]),
        FakeRecord(0, ONE, b"{}", [("ce_orgversion", b"one")]),
    ],
)
def test_a_record_that_is_not_the_services_is_skipped(record: FakeRecord) -> None:
    assert read_versions([record]) == []


def test_a_change_is_typed_and_keeps_what_it_does_not_know() -> None:
    [change] = events(event(1, 2, position=77, event_type="org.merged", into="another"), known={ONE: 1})
    assert change.type == "org.merged"
    assert change.body["into"] == "another"
    assert change.before == Organization.model_validate(body(1, 1))
    assert change.after is not None
    assert change.after.name == "1 at 2"
    assert (change.changed, change.actor, change.position) == ({"name"}, "ann", 77)


def test_a_change_that_stands_for_several_may_have_changed_anything() -> None:
    [loaded] = fold_states(read_versions([state(1, 4)]), {}, KEEPER)
    [healed] = events(event(1, 9), known={ONE: 4})
    assert loaded.changed == healed.changed == FIELDS
    assert loaded.before is None
    assert loaded.after == Organization.model_validate(body(1, 4))


@pytest.mark.parametrize(
    ("wanted", "versions"),
    [
        (Filter(), [3, 1, 2]),
        (Filter(types={"org.deleted"}), [3, 2]),
        (Filter(fields={"name"}), [3, 1]),
        (Filter(fields={"domain"}), [3]),
        (Filter(where=lambda change: change.version > 1), [3, 2]),
    ],
)
def test_a_filter_lets_pass_what_may_be_wanted(wanted: Filter, versions: list[int]) -> None:
    changes = fold_states(read_versions([state(2, 3)]), {}, KEEPER)
    changes += events(event(1, 1), event(1, 2, event_type="org.deleted"))
    assert [change.version for change in changes if wanted.wants(change)] == versions


def test_a_parked_change_is_the_same_again() -> None:
    [change] = events(event(1, 9, actor="Zoë"), known={ONE: 4})
    again: Change[Any] = unpack(pack(change, "it failed"), KEEPER)
    assert (again.kind, again.key, again.version, again.type) == (Kind.HEALED, ONE, 9, "org.updated")
    assert (again.value, list(again.headers), again.actor) == (change.value, list(change.headers), "Zoë")
    assert json.loads(again.value or b"") == dict(again.body)
