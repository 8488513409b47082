"""What taking changes back comes to, history by history."""

from typing import Any
from uuid import UUID

import pytest

from org_service.domain.undo import Past, Undoing, undo

ORG = UUID("0190c5f0-7d1c-7b7e-9d57-000000000001")
ADDRESS = {
    "line1": "Street 1",
    "line2": None,
    "city": "Oslo",
    "region": None,
    "postal_code": None,
    "country": "NO",
}


def state(**fields: Any) -> dict[str, Any]:
    return {"name": "Acme", "domain": None, "primary_address": None, "deactivated": False} | fields


class History:
    """Makes the changes of one organization; what is said of one is what becomes of it."""

    def __init__(self) -> None:
        self.changes: list[Past] = []
        self._now: dict[str, Any] | None = None
        self._kept = state()

    def _add(self, kind: str, after: dict[str, Any] | None, *, chosen: bool) -> "History":
        before, kept = self._now, self._kept
        changed = [] if before is None or after is None else [name for name in after if after[name] != before[name]]
        actor = "mallory" if chosen else "alice"
        shown_before = None if kind == "org.restored" else before
        version = len(self.changes) + 1
        self.changes.append(Past(version, kind, changed, shown_before, after, actor, chosen))
        self._now, self._kept = after, kept if after is None else after
        return self

    def create(self, *, chosen: bool = False, **fields: Any) -> "History":
        return self._add("org.created", state(**fields), chosen=chosen)

    def update(self, *, chosen: bool = False, **fields: Any) -> "History":
        return self._add("org.updated", (self._now or {}) | fields, chosen=chosen)

    def deactivate(self, *, chosen: bool = False) -> "History":
        return self._add("org.deactivated", (self._now or {}) | {"deactivated": True}, chosen=chosen)

    def reactivate(self, *, chosen: bool = False) -> "History":
        return self._add("org.reactivated", (self._now or {}) | {"deactivated": False}, chosen=chosen)

    def delete(self, *, chosen: bool = False) -> "History":
        return self._add("org.deleted", None, chosen=chosen)

    def restore(self, *, chosen: bool = False) -> "History":
        return self._add("org.restored", self._kept, chosen=chosen)

    def undone(self) -> Undoing:
        return undo(ORG, self.changes)


def sent(undoing: Undoing) -> list[tuple[str, dict[str, Any]]]:
    bodies = [(each.type, each.model_dump(mode="json", exclude_unset=True)) for each in undoing.commands]
    assert all(body.pop("org_id") == str(ORG) for _, body in bodies)
    return bodies


def test_a_change_is_taken_back_to_what_was_before_guarded_by_what_it_made() -> None:
    undoing = History().create().update(chosen=True, name="Wrong", domain="wrong.example").undone()
    assert sent(undoing) == [
        (
            "org.update",
            {
                "name": "Acme",
                "domain": None,
                "if_current": {"name": "Wrong", "domain": "wrong.example"},
            },
        )
    ]
    assert (undoing.before, undoing.after) == (state(name="Wrong", domain="wrong.example"), state())
    assert (undoing.taken_back, undoing.conflicts) == (1, ())


def test_an_address_goes_back_whole() -> None:
    undoing = History().create(primary_address=ADDRESS).update(chosen=True, primary_address=None).undone()
    assert sent(undoing) == [("org.update", {"primary_address": ADDRESS, "if_current": {"primary_address": None}})]


def test_several_changes_are_taken_back_by_one_command() -> None:
    history = History().create().update(chosen=True, name="B").update(chosen=True, name="C")
    undoing = history.update(chosen=True, domain="c.example").undone()
    assert sent(undoing) == [
        ("org.update", {"name": "Acme", "domain": None, "if_current": {"name": "C", "domain": "c.example"}})
    ]
    assert undoing.taken_back == 3


def test_later_work_on_another_field_stays_and_is_no_obstacle() -> None:
    undoing = History().create().update(chosen=True, name="Wrong").update(domain="acme.example").undone()
    assert sent(undoing) == [("org.update", {"name": "Acme", "if_current": {"name": "Wrong"}})]
    assert undoing.after == state(domain="acme.example")


def test_later_work_on_the_same_field_is_never_overwritten() -> None:
    undoing = History().create().update(chosen=True, name="Wrong", domain="w.example").update(name="Right").undone()
    assert sent(undoing) == []
    assert undoing.conflicts == ("version 2: name changed since, by alice at version 3",)
    assert undoing.after == undoing.before


def test_a_change_under_later_work_keeps_older_ones_from_being_taken_back() -> None:
    history = History().create().update(chosen=True, name="B").update(name="C").update(chosen=True, name="D")
    undoing = history.undone()
    assert sent(undoing) == [("org.update", {"name": "C", "if_current": {"name": "D"}})]
    assert undoing.conflicts == ("version 2: name changed since, by alice at version 3",)


def test_what_was_taken_back_already_is_neither_done_nor_a_conflict() -> None:
    undoing = History().create().update(chosen=True, name="Wrong").update(name="Acme").undone()
    assert (sent(undoing), undoing.conflicts, undoing.done_before) == ([], (), 1)


def test_what_was_created_is_deleted() -> None:
    undoing = History().create(chosen=True).update(chosen=True, name="B").undone()
    assert sent(undoing) == [("org.delete", {"expected_version": 2})]
    assert undoing.after is None


@pytest.mark.parametrize("later", ["update", "deactivate", "delete"])
def test_what_was_created_and_worked_on_is_not_deleted(later: str) -> None:
    history = History().create(chosen=True)
    undoing = (history.update(domain="x.example") if later == "update" else getattr(history, later)()).undone()
    assert sent(undoing) == []
    assert undoing.conflicts == (() if later == "delete" else ("version 1: changed since, by alice at version 2",))


def test_what_was_deleted_is_restored_as_it_was_before_the_changes_that_are_taken_back() -> None:
    undoing = History().create().update(chosen=True, name="Wrong").delete(chosen=True).undone()
    assert sent(undoing) == [
        ("org.restore", {"expected_version": 3}),
        ("org.update", {"name": "Acme", "if_current": {"name": "Wrong"}}),
    ]
    assert (undoing.before, undoing.after) == (None, state())


def test_a_change_of_what_others_deleted_since_is_a_conflict() -> None:
    undoing = History().create().update(chosen=True, name="Wrong").delete().undone()
    assert sent(undoing) == []
    assert undoing.conflicts == ("version 2: deleted since, by alice at version 3",)


def test_a_deletion_that_others_took_back_is_done_already() -> None:
    undoing = History().create().delete(chosen=True).restore().undone()
    assert (sent(undoing), undoing.conflicts, undoing.done_before) == ([], (), 1)


def test_a_restored_one_is_deleted_again() -> None:
    undoing = History().create().delete().restore(chosen=True).undone()
    assert sent(undoing) == [("org.delete", {"expected_version": 3})]


def test_a_deletion_and_its_restoration_come_to_nothing() -> None:
    undoing = History().create().delete(chosen=True).restore(chosen=True).undone()
    assert (sent(undoing), undoing.conflicts) == ([], ())


def test_a_deactivation_is_taken_back_before_the_fields_are_changed() -> None:
    undoing = History().create().update(chosen=True, name="Wrong").deactivate(chosen=True).undone()
    assert sent(undoing) == [
        ("org.reactivate", {"expected_version": 3}),
        ("org.update", {"name": "Acme", "if_current": {"name": "Wrong"}}),
    ]


def test_a_reactivation_is_taken_back_after_the_fields_are_changed() -> None:
    history = History().create().deactivate().reactivate(chosen=True).update(chosen=True, name="Wrong")
    assert sent(history.undone()) == [
        ("org.update", {"name": "Acme", "if_current": {"name": "Wrong"}}),
        ("org.deactivate", {"expected_version": 5}),
    ]


def test_a_deactivation_that_others_took_over_stays() -> None:
    undoing = History().create().deactivate(chosen=True).reactivate().deactivate().undone()
    assert sent(undoing) == []
    assert undoing.conflicts == ("version 2: deactivated changed since, by alice at version 3",)


def test_fields_of_a_deactivated_organization_cant_be_changed() -> None:
    undoing = History().create().update(chosen=True, name="Wrong").deactivate().undone()
    assert sent(undoing) == []
    assert undoing.conflicts == ("it is deactivated: reactivate it first, and plan again",)


def test_what_was_valid_once_and_is_no_more_is_a_conflict() -> None:
    undoing = History().create(domain="not a domain").update(chosen=True, domain="acme.example").undone()
    assert sent(undoing) == []
    assert "what it was is not valid any more: domain: " in undoing.conflicts[0]


def test_an_undo_can_be_undone() -> None:
    history = History().create().update(name="Wrong", domain="w.example").update(chosen=True, name="Acme", domain=None)
    undoing = history.undone()
    assert undoing.after == state(name="Wrong", domain="w.example")
    assert undoing.conflicts == ()


def test_what_was_erased_cannot_be_taken_back() -> None:
    gone = Past(4, "org.erased", (), None, None, None, chosen=True)
    undoing = undo(ORG, [Past(3, "org.deleted", (), None, None, None, chosen=True), gone])
    assert (undoing.commands, undoing.taken_back) == ((), 0)
    assert undoing.conflicts == ("it was erased, and there is nothing to bring back",)
