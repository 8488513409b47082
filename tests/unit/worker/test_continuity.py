"""Where to go on in a log that may have lost something: a table of what Kafka says and what is done."""

from uuid import UUID

import pytest

from org_service.domain.reasons import LossReason
from org_service.worker.continuity import Found, GoOn, Note, decide_place, parse

OURS, ANOTHER = UUID(int=1), UUID(int=2)
NOTE = Note(OURS, 4, (1_700_000_000_000, 77))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(Found(None, None, 3, 9, False), GoOn(3), id="nothing was committed"),
        pytest.param(Found(7, NOTE, 3, 9, False), GoOn(7), id="the log goes on"),
        pytest.param(Found(9, NOTE, 3, 9, False), GoOn(9), id="nothing new"),
        pytest.param(Found(3, NOTE, 3, 3, False), GoOn(3), id="all that was read is gone, and no more"),
        pytest.param(Found(7, NOTE, 9, 12, False), GoOn(9, (7, 9, LossReason.EXPIRED)), id="deleted unread"),
        pytest.param(Found(12, NOTE, 3, 9, False), GoOn(9, (9, 12, LossReason.TRUNCATED)), id="the end was lost"),
        pytest.param(Found(12, NOTE, 3, 9, True), GoOn(12), id="another leader since, and the same log"),
        pytest.param(
            Found(12, NOTE, 10, 9, False),
            GoOn(10, (10, 12, LossReason.TRUNCATED)),
            id="the end, and the beginning",
        ),
        pytest.param(
            Found(12, NOTE, 3, -1, False),
            GoOn(3, (3, 12, LossReason.TRUNCATED)),
            id="the log never knew the epoch",
        ),
        pytest.param(
            Found(12, None, 3, 9, False), GoOn(3, (9, 12, LossReason.TRUNCATED)), id="beyond the end, no note"
        ),
        pytest.param(Found(12, None, 3, 14, False), GoOn(12), id="no note, and nothing against it"),
        pytest.param(
            Found(7, NOTE._replace(topic_id=ANOTHER), 0, 20, False),
            GoOn(0, (7, None, LossReason.RECREATED)),
            id="another topic",
        ),
    ],
)
def test_where_to_continue(found: Found, expected: GoOn) -> None:
    assert decide_place(found, OURS) == expected


@pytest.mark.parametrize("note", [NOTE, NOTE._replace(record=None)])
def test_a_note_is_read_as_it_was_written(note: Note) -> None:
    assert parse(note.to_text()) == note


@pytest.mark.parametrize("text", [None, "", "orgs1", "orgs2 00 1 2 3", "orgs1 x 1 2 3", f"orgs1 {'0' * 32} 1 2 x"])
def test_an_invalid_note_is_ignored(text: str | None) -> None:
    assert parse(text) is None
