"""A cursor leads on from where a page ended, or nowhere."""

import base64
from hashlib import blake2b
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org_service.edge.http.cursor import read_cursor as read
from org_service.edge.http.cursor import write_cursor
from org_service.edge.http.problems import ProblemError

ORG = UUID("0a000000-0000-4000-8000-000000000001")
BY_NAME = "ac\0None\0name"
BY_TIME = "None\0None\0-created_at"


def rejected(question: str, cursor: str) -> bool:
    try:
        read(question, cursor)
    except ProblemError as rejection:
        return rejection.status == 400
    return False


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200), st.uuids())
def test_a_cursor_is_read_as_it_was_written(key: str, org_id: UUID) -> None:
    assert read(BY_NAME, write_cursor(BY_NAME, (key, org_id))) == (key, org_id)


def test_a_cursor_fits_into_a_url_as_it_is() -> None:
    cursor = write_cursor(BY_NAME, ("\u6f22" * 200, ORG))
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert len(cursor) < 1_000


@pytest.mark.parametrize("other", ["ac\0None\0-name", "ad\0None\0name", "ac\0direct\0name", "None\0None\0name"])
def test_a_cursor_belongs_to_its_question(other: str) -> None:
    assert rejected(other, write_cursor(BY_NAME, ("acme", ORG)))


@given(st.data())
def test_a_cursor_that_was_changed_is_rejected(data: st.DataObject) -> None:
    cursor = write_cursor(BY_NAME, ("acme", ORG))
    place = data.draw(st.integers(0, len(cursor) - 1))
    letter = data.draw(st.sampled_from("Aa0-_"))
    changed = cursor[:place] + letter + cursor[place + 1 :]
    # The last letter of Base64 has bits that mean nothing.
    assert changed == cursor or place == len(cursor) - 1 or rejected(BY_NAME, changed)


@given(st.text(max_size=100))
def test_any_text_is_rejected_and_never_raises_anything_else(text: str) -> None:
    assert rejected(BY_NAME, text)


@pytest.mark.parametrize(
    ("question", "content"),
    [
        (BY_NAME, b"[5, 6]"),
        (BY_NAME, b'["a"]'),
        (BY_NAME, b"{}"),
        (BY_NAME, b'["a\\u0000", "0a000000-0000-4000-8000-000000000001"]'),
        (BY_NAME, b'["a", "no id"]'),
        (BY_TIME, b'["yesterday", "0a000000-0000-4000-8000-000000000001"]'),
        (BY_TIME, b'["2026-03-01T12:00:00", "0a000000-0000-4000-8000-000000000001"]'),
        (BY_NAME, b'[["a"], "0a000000-0000-4000-8000-000000000001"]'),
        (BY_NAME, b'[{"a": 1}, "0a000000-0000-4000-8000-000000000001"]'),
        (BY_TIME, b'["0001-01-01T00:00:00+23:59", "0a000000-0000-4000-8000-000000000001"]'),
        (BY_TIME, b'["9999-12-31T23:59:59-23:59", "0a000000-0000-4000-8000-000000000001"]'),
        (BY_TIME, b'[7, "0a000000-0000-4000-8000-000000000001"]'),
        (BY_NAME, b'["a", 7]'),
    ],
)
def test_a_forged_cursor_with_the_right_digest_does_not_reach_the_database(question: str, content: bytes) -> None:
    assert rejected(question, made_up(question, content))


def made_up(question: str, content: bytes) -> str:
    """A cursor by somebody who knows how a digest is made."""
    digest = blake2b(content, digest_size=8, key=blake2b(question.encode(), digest_size=32).digest()).digest()
    return base64.urlsafe_b64encode(digest + content).decode().rstrip("=")


def test_the_digest_of_a_made_up_cursor_is_right() -> None:
    """Else the cursors before would be rejected for that alone."""
    assert read(BY_NAME, made_up(BY_NAME, f'["a", "{ORG}"]'.encode())) == ("a", ORG)
