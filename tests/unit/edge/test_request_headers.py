"""Preconditions, repetition and preferences, as RFC 9110 and RFC 7240 have them."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org_service.edge.http.problems import ProblemError
from org_service.edge.http.request_headers import (
    NO_VERSION,
    combine,
    derive_command_id,
    forbids_any,
    is_current,
    is_sane_request_id,
    make_etag,
    make_etag_for,
    parse_preference,
    read_if_match,
    require_single,
)
from org_service.wire.ids import read_traceparent


def test_an_etag_is_the_version_in_quotes() -> None:
    assert make_etag(7) == b'"v7"'
    assert make_etag_for(7, "1f0c9a3e") == b'"v7-1f0c9a3e"'


def test_lines_of_a_list_header_are_combined_and_other_headers_must_be_single() -> None:
    assert combine([]) is None
    assert combine(['"v7"', '"v8", "v9"']) == '"v7", "v8", "v9"'
    assert require_single([], "Idempotency-Key") is None
    assert require_single(["a", " a "], "Idempotency-Key") == "a"
    with pytest.raises(ProblemError) as rejected:
        require_single(["a", "b"], "Idempotency-Key")
    assert rejected.value.status == 400
    assert rejected.value.problem["detail"] == "Send Idempotency-Key once; it has 2 values."


@pytest.mark.parametrize(
    ("if_match", "versions"),
    [
        (None, None),
        ("*", None),
        (" * ", None),
        ('"v7"', (7,)),
        ('"v7", "v9"', (7, 9)),
        ('"v7","v7" ,\t"v8"', (7, 8)),
        ('W/"v7"', (NO_VERSION,)),
        ('W/"v7", "v8"', (8,)),
        ('"7"', (NO_VERSION,)),
        ('"v0"', (NO_VERSION,)),
        ('"v07"', (NO_VERSION,)),
        ('"v9223372036854775807"', (NO_VERSION,)),
        ('"v9999999999999999999"', (NO_VERSION,)),
        ('"a,b", "v8"', (8,)),
        ('""', (NO_VERSION,)),
        ('"v7",', (7,)),
        (', ,\t"v7" , , "v8",', (7, 8)),
        ('"v7-1f0c9a3e"', (7,)),
        ('"v7-1f0c9a3e", "v7"', (7,)),
        ('"v7-admin"', (NO_VERSION,)),
        ('"\\", "v8"', (8,)),
    ],
)
def test_if_match_lets_through_just_the_versions_it_names(
    if_match: str | None, versions: tuple[int, ...] | None
) -> None:
    assert read_if_match(if_match).versions == versions


def test_a_weak_form_of_our_tag_is_recognized() -> None:
    assert [read_if_match(each).weak for each in ('W/"v7"', '"v8", W/"v7-1f0c9a3e"', 'W/"other"', '"v7"')] == [
        True,
        True,
        False,
        False,
    ]


def test_a_change_may_have_if_none_match_star_and_nothing_else() -> None:
    assert [forbids_any(each) for each in (None, "*", " * ")] == [False, True, True]
    for header in ("", '"v7"', '*, "v7"'):
        with pytest.raises(ProblemError) as rejected:
            forbids_any(header)
        assert rejected.value.status == 400


@pytest.mark.parametrize("header", ["", ",", "v7", '"v7', '"v7" "v8"', '"v7", v8', "w/", "*,", '"\u00e9"', '"v7"x'])
def test_what_is_not_a_list_of_etags_is_rejected(header: str) -> None:
    for read in (read_if_match, lambda text: is_current(text, b'"v7"')):
        with pytest.raises(ProblemError) as rejected:
            read(header)
        assert rejected.value.status == 400


def test_a_list_of_etags_is_bounded() -> None:
    assert len(read_if_match(", ".join(f'"v{n}"' for n in range(1, 11))).versions or ()) == 10
    with pytest.raises(ProblemError):
        read_if_match(", ".join(f'"v{n}"' for n in range(1, 12)))


@pytest.mark.parametrize(
    ("if_none_match", "current"),
    [
        ("*", True),
        ('"v7-1f0c9a3e"', True),
        ('W/"v7-1f0c9a3e"', True),
        ('"v6", W/"v7-1f0c9a3e",', True),
        ('"v70-1f0c9a3e"', False),
        ('"v7-1f0c9a3f"', False),
        ('"v7"', False),
    ],
)
def test_if_none_match_compares_weakly(if_none_match: str, current: bool) -> None:
    assert is_current(if_none_match, b'"v7-1f0c9a3e"') is current


@given(st.text(max_size=50))
def test_any_header_is_read_or_rejected_with_400(text: str) -> None:
    statuses: set[int] = set()
    for read in (read_if_match, forbids_any, lambda t: is_current(t, b'"v7"'), lambda t: derive_command_id("ann", t)):
        try:
            read(text)
        except ProblemError as rejection:
            statuses.add(rejection.status)
    assert statuses <= {400}
    assert 0 <= parse_preference(text, 10).wait_s <= 10


def test_a_key_is_the_same_bare_and_quoted_and_another_for_another_actor() -> None:
    first = derive_command_id("ann", "a-key")
    assert first == derive_command_id("ann", '"a-key"')
    assert first == UUID("20dfd3ae-3206-543a-9975-74d4c0631e45")
    assert first != derive_command_id("bob", "a-key")
    assert first != derive_command_id("ann", "another")


def test_characters_cannot_move_between_actor_and_key() -> None:
    assert derive_command_id("ann", "bkey") != derive_command_id("annb", "key")


@pytest.mark.parametrize("key", ["", '""', "a key", "k" * 256, "schl\u00fcssel", 'a"b', "\x7f", '"'])
def test_a_key_that_is_not_visible_ascii_is_rejected(key: str) -> None:
    with pytest.raises(ProblemError) as rejected:
        derive_command_id("ann", key)
    assert rejected.value.status == 400


def test_a_key_of_255_characters_is_accepted() -> None:
    assert derive_command_id("ann", "k" * 255).version == 5


@pytest.mark.parametrize(
    ("prefer", "wait_s", "decided", "pending"),
    [
        (None, 10, None, None),
        ("respond-async", 0, None, "respond-async"),
        ("Respond-Async, wait=5", 5, "wait=5", "respond-async, wait=5"),
        ("wait=5, respond-async", 5, "wait=5", "respond-async, wait=5"),
        ("respond-async, wait=99", 10, None, "respond-async"),
        ('respond-async=""', 0, None, "respond-async"),
        ("respond-async=yes", 10, None, None),
        ("wait=5", 5, "wait=5", "wait=5"),
        ('wait="5"', 5, "wait=5", "wait=5"),
        ("wait = 05", 5, "wait=5", "wait=5"),
        ("wait=0", 0, "wait=0", "wait=0"),
        ("wait=10", 10, "wait=10", "wait=10"),
        ("wait=11", 10, None, None),
        ("wait=3, wait=4", 3, "wait=3", "wait=3"),
        (",, wait=3 ,", 3, "wait=3", "wait=3"),
        ("return=minimal, wait=3; x=y", 3, "wait=3", "wait=3"),
        ('note="a, wait=3, b", wait=4', 4, "wait=4", "wait=4"),
        (r'note="a\", wait=3, b", wait=4', 4, "wait=4", "wait=4"),
        ('note="; x", respond-async', 0, None, "respond-async"),
        ('x; note=", respond-async, "', 10, None, None),
        ('note="wait=3, wait=4', 10, None, None),
        ("wait=-1", 10, None, None),
        ("wait=1.5", 10, None, None),
        ("wait", 10, None, None),
        ("handling=strict", 10, None, None),
    ],
)
def test_prefer_shortens_the_wait_and_reports_only_what_was_applied(
    prefer: str | None, wait_s: float, decided: str | None, pending: str | None
) -> None:
    read = parse_preference(prefer, 10)
    assert (read.wait_s, read.describe_applied(pending=False), read.describe_applied(pending=True)) == (
        wait_s,
        decided,
        pending,
    )


def test_a_request_id_must_not_break_a_log_line() -> None:
    assert is_sane_request_id("req-1.A_b:/+=")
    assert not is_sane_request_id("")
    assert not is_sane_request_id("a b")
    assert not is_sane_request_id("a\nb")
    assert not is_sane_request_id("x" * 129)


def test_only_a_valid_trace_context_is_passed_on() -> None:
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert read_traceparent(good) == good
    assert read_traceparent(good.upper()) is None
    assert read_traceparent("00-" + "0" * 32 + "-b7ad6b7169203331-01") is None
    assert read_traceparent("ff" + good[2:]) is None
    assert read_traceparent(good + "-more") is None
