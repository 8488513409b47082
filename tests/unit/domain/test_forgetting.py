"""Notes lose what they say of erased organizations, and keep what they say of others."""

from typing import Any

import pytest

from org_service.domain.forgetting import Forgotten, NoteIndex, blank, forget, is_blank, mentions

ORG = "0190c5f0-7d1c-7b7e-9d57-000000000001"
OTHER = "0190c5f0-7d1c-7b7e-9d57-000000000002"
WHAT = Forgotten([ORG], ["Acme", "Acme & Sons", "acme.com"])


@pytest.mark.parametrize(
    ("note", "left"),
    [
        ("moves ACME & SONS (acme.com) away", "moves [erased] ([erased]) away"),
        ("nothing of it", "nothing of it"),
        ({"org_id": ORG, "name": "Beta", "version": 3}, {"org_id": ORG, "name": "[erased]", "version": 3}),
        ({"org_id": OTHER, "name": "Beta", "of": "Acme"}, {"org_id": OTHER, "name": "Beta", "of": "[erased]"}),
        ([["org_id", ORG], ["at", "2026-01-02T03:04:05Z"], ["to", {"name": "Beta"}]],
         [["org_id", ORG], ["at", "2026-01-02T03:04:05Z"], ["to", "[erased]"]]),
        ([["org_id", OTHER], ["name", "Beta"]], [["org_id", OTHER], ["name", "Beta"]]),
        ({"item": f"line 3 {ORG}", "why": "taken by Beta"}, {"item": "[erased]", "why": "[erased]"}),
        ({"rows": [{"id": ORG, "x": "y"}, {"id": OTHER, "x": "y"}]},
         {"rows": [{"id": ORG, "x": "[erased]"}, {"id": OTHER, "x": "y"}]}),
        ({"org_ids": [ORG, OTHER], "name": "Beta"}, {"org_ids": [ORG, OTHER], "name": "Beta"}),
        (None, None),
    ],
)  # fmt: skip
def test_what_is_left_of_a_note(note: Any, left: Any) -> None:
    assert forget(note, WHAT) == left
    assert forget(left, WHAT) == left


def test_a_note_that_says_more_than_an_id_mentions_it() -> None:
    assert mentions([[["org_id", ORG], ["name", "Beta"]]], [ORG])
    assert not mentions([[["org_id", ORG], ["name", "[erased]"]]], [ORG])
    assert not mentions([[["org_id", ORG], ["name", "Beta"]]], [OTHER])


def test_an_index_finds_every_note_that_may_mention_a_thing() -> None:
    index = NoteIndex()
    index.add(1, {"sample": [["a", "of ACME & sons"]]})
    index.add(2, "Acme")
    index.add(3, ["Sons", {"x": f"about {ORG}."}])
    assert index.find(["Acme & Sons", "Acme", ORG, "Gamma", "&"]) == {1: ["Acme & Sons", "Acme"], 2: ["Acme"], 3: [ORG]}


def test_a_note_of_nothing_that_is_still_there_loses_all_its_texts() -> None:
    note = {"actors": ["kari"], "of": [["id", ORG], ["name", "Beta"]], "at": "2026-01-02T03:04:05Z", "n": 3}
    assert blank(note) == {"actors": ["[erased]"], "of": [["id", ORG], ["name", "[erased]"]], "at": note["at"], "n": 3}
    assert is_blank(blank(note))
    assert not is_blank(note)
