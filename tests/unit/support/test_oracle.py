"""The oracle against a hand-written table: what came before, one command, and what must become of it."""

import json
from typing import Any

import pytest

from tests.support import oracle
from tests.support.oracle import Expected, Oracle

A = "0190aaaa-0000-7000-8000-00000000000a"
B = "0190bbbb-0000-7000-8000-00000000000b"
ADDRESS = {"line1": "1 Way", "line2": None, "city": "Oslo", "region": None, "postal_code": None, "country": "NO"}


def command_id(number: int) -> str:
    return f"0190cccc-0000-7000-8000-{number:012d}"


def headers(number: int, command_type: str) -> list[tuple[str, bytes | None]]:
    return [("ce_id", command_id(number).encode()), ("ce_type", command_type.encode())]


class Script:
    """Feeds commands with ids 1, 2, 3 …"""

    def __init__(self) -> None:
        self.oracle = Oracle()
        self.sent = 0

    def __call__(self, command_type: str, org_id: str = A, /, **body: Any) -> Expected:
        self.sent += 1
        content = json.dumps({"org_id": org_id, **body}).encode()
        return self.oracle.expect(org_id.encode(), headers(self.sent, command_type), content)


@pytest.fixture
def send() -> Script:
    return Script()


Step = tuple[Any, ...]
CREATE_A: Step = ("org.create", A, {"name": "Acme"})
CREATE_B: Step = ("org.create", B, {"name": "Bolt"})
DELETE_A: Step = ("org.delete", A, {})
DEACTIVATE_A: Step = ("org.deactivate", A, {})

TABLE: list[tuple[str, list[Step], Step, tuple[str, int, int | None, str | None]]] = [
    ("create", [], CREATE_A, ("applied", 200, 1, None)),
    ("create twice", [CREATE_A], ("org.create", A, {"name": "Other"}), ("rejected", 409, 1, oracle.ALREADY_EXISTS)),
    (
        "create a deleted id",
        [CREATE_A, DELETE_A],
        ("org.create", A, {"name": "Other"}),
        ("rejected", 409, 2, oracle.ALREADY_EXISTS),
    ),
    ("a name taken", [CREATE_A], ("org.create", B, {"name": "ACME"}), ("rejected", 409, None, oracle.NAME_TAKEN)),
    (
        "a name folded",
        [("org.create", A, {"name": "Straße"})],
        ("org.create", B, {"name": "STRASSE"}),
        ("rejected", 409, None, oracle.NAME_TAKEN),
    ),
    (
        "a name full width",
        [CREATE_A],
        ("org.create", B, {"name": " \uff21cme "}),
        ("rejected", 409, None, oracle.NAME_TAKEN),
    ),
    ("a deleted name is free", [CREATE_A, DELETE_A], ("org.create", B, {"name": "Acme"}), ("applied", 200, 1, None)),
    (
        "a name given up is free",
        [CREATE_A, ("org.update", A, {"name": "New"})],
        ("org.create", B, {"name": "Acme"}),
        ("applied", 200, 1, None),
    ),
    ("create without a name", [], ("org.create", A, {}), ("rejected", 422, None, oracle.INVALID_FIELDS)),
    (
        "422 before 409",
        [CREATE_A],
        ("org.create", A, {"name": "x", "domain": "com"}),
        ("rejected", 422, 1, oracle.INVALID_FIELDS),
    ),
    ("update a missing one", [], ("org.update", A, {"name": "x"}), ("rejected", 404, None, oracle.NOT_FOUND)),
    ("404 before 422", [], ("org.update", A, {"name": ""}), ("rejected", 404, None, oracle.NOT_FOUND)),
    ("404 before 409", [], ("org.update", A, {"expected_version": 9}), ("rejected", 404, None, oracle.NOT_FOUND)),
    ("update", [CREATE_A], ("org.update", A, {"name": "New"}), ("applied", 200, 2, None)),
    ("update of nothing", [CREATE_A], ("org.update", A, {}), ("unchanged", 200, 1, None)),
    ("update to the same", [CREATE_A], ("org.update", A, {"name": " Acme "}), ("unchanged", 200, 1, None)),
    ("update of the case", [CREATE_A], ("org.update", A, {"name": "ACME"}), ("applied", 200, 2, None)),
    ("name null", [CREATE_A], ("org.update", A, {"name": None}), ("rejected", 422, 1, oracle.INVALID_FIELDS)),
    (
        "rename into another",
        [CREATE_A, CREATE_B],
        ("org.update", A, {"name": "bolt"}),
        ("rejected", 409, 1, oracle.NAME_TAKEN),
    ),
    (
        "stale version",
        [CREATE_A],
        ("org.update", A, {"expected_version": 2}),
        ("rejected", 409, 1, oracle.PRECONDITION),
    ),
    (
        "precondition before unchanged",
        [CREATE_A, DEACTIVATE_A],
        ("org.deactivate", A, {"expected_version": 1}),
        ("rejected", 409, 2, oracle.PRECONDITION),
    ),
    (
        "precondition before deactivated",
        [CREATE_A, DEACTIVATE_A],
        ("org.update", A, {"name": "x", "expected_version": 1}),
        ("rejected", 409, 2, oracle.PRECONDITION),
    ),
    (
        "deactivated before name taken",
        [CREATE_A, CREATE_B, DEACTIVATE_A],
        ("org.update", A, {"name": "Bolt"}),
        ("rejected", 409, 2, oracle.DEACTIVATED),
    ),
    (
        "precondition before name taken",
        [CREATE_A, CREATE_B],
        ("org.update", A, {"name": "Bolt", "if_current": {"domain": "a.no"}}),
        ("rejected", 409, 1, oracle.PRECONDITION),
    ),
    (
        "422 before precondition",
        [CREATE_A],
        ("org.update", A, {"domain": "x", "expected_version": 5}),
        ("rejected", 422, 1, oracle.INVALID_FIELDS),
    ),
    (
        "version of text",
        [CREATE_A],
        ("org.delete", A, {"expected_version": "1"}),
        ("rejected", 422, 1, oracle.INVALID_FIELDS),
    ),
    (
        "if_current holds",
        [CREATE_A],
        ("org.delete", A, {"if_current": {"name": "Acme", "domain": None}}),
        ("applied", 200, 2, None),
    ),
    ("if_current null", [CREATE_A], ("org.delete", A, {"if_current": None}), ("applied", 200, 2, None)),
    (
        "update a deactivated one",
        [CREATE_A, DEACTIVATE_A],
        ("org.update", A, {}),
        ("rejected", 409, 2, oracle.DEACTIVATED),
    ),
    ("deactivate", [CREATE_A], DEACTIVATE_A, ("applied", 200, 2, None)),
    ("deactivate twice", [CREATE_A, DEACTIVATE_A], DEACTIVATE_A, ("unchanged", 200, 2, None)),
    ("reactivate", [CREATE_A, DEACTIVATE_A], ("org.reactivate", A, {}), ("applied", 200, 3, None)),
    ("reactivate an active one", [CREATE_A], ("org.reactivate", A, {}), ("unchanged", 200, 1, None)),
    ("delete a deactivated one", [CREATE_A, DEACTIVATE_A], DELETE_A, ("applied", 200, 3, None)),
    ("delete twice", [CREATE_A, DELETE_A], DELETE_A, ("rejected", 404, None, oracle.NOT_FOUND)),
    ("restore", [CREATE_A, DELETE_A], ("org.restore", A, {}), ("applied", 200, 3, None)),
    ("restore what is there", [CREATE_A], ("org.restore", A, {}), ("unchanged", 200, 1, None)),
    ("restore what never was", [], ("org.restore", A, {}), ("rejected", 404, None, oracle.NOT_FOUND)),
    (
        "restore onto a taken name",
        [CREATE_A, DELETE_A, ("org.create", B, {"name": "acme"})],
        ("org.restore", A, {}),
        ("rejected", 409, 2, oracle.NAME_TAKEN),
    ),
    ("unknown type", [], ("org.explode", A, {}), ("rejected", 400, None, oracle.UNREADABLE)),
    ("bad org id", [], ("org.create", "acme", {"name": "x"}), ("rejected", 400, None, oracle.UNREADABLE)),
    ("unknown fields are ignored", [], ("org.create", A, {"name": "x", "colour": 1}), ("applied", 200, 1, None)),
]


@pytest.mark.parametrize(("before", "step", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_each_row_of_the_table(
    send: Script, before: list[Step], step: Step, expected: tuple[str, int, int | None, str | None]
) -> None:
    for command_type, org_id, body in before:
        assert send(command_type, org_id, **body).outcome == "applied"
    command_type, org_id, body = step
    verdict = send(command_type, org_id, **body)
    assert (verdict.outcome, verdict.code, verdict.version, verdict.problem) == expected
    assert (verdict.event is not None) == (expected[0] == "applied")
    assert verdict.kind == "first"


def test_a_create_has_nothing_before_and_names_what_was_set(send: Script) -> None:
    event = send(
        "org.create",
        A,
        name="  Acme ",
        domain="ACME.no",
        primary_address={"line1": "1 Way", "city": "Oslo", "country": "NO"},
    ).event
    after = {
        "id": A,
        "name": "Acme",
        "domain": "acme.no",
        "primary_address": ADDRESS,
        "deactivated": False,
        "version": 1,
    }
    assert event == oracle.Event("org.created", 1, ("name", "domain", "primary_address"), None, after)


def test_a_delete_carries_the_last_state_and_a_restore_brings_it_back_deactivated_as_it_was(send: Script) -> None:
    send("org.create", A, name="Acme")
    send("org.deactivate")
    whole = {"id": A, "name": "Acme", "domain": None, "primary_address": None, "deactivated": True}
    deleted = send("org.delete")
    assert deleted.event == oracle.Event("org.deleted", 3, ("name", "deactivated"), whole | {"version": 2}, None)
    assert deleted.organization is None
    assert send.oracle.state() == {}
    restored = send("org.restore")
    assert restored.event == oracle.Event("org.restored", 4, ("name", "deactivated"), None, whole | {"version": 4})
    assert send.oracle.state() == {A: whole | {"version": 4}}


def test_a_field_left_out_stays_and_null_clears(send: Script) -> None:
    send("org.create", A, name="Acme", domain="acme.no")
    event = send("org.update", A, name="New").event
    assert event is not None
    assert event.after is not None
    assert (event.after["domain"], event.changed) == ("acme.no", ("name",))
    event = send("org.update", A, domain=None).event
    assert event is not None
    assert event.after is not None
    assert (event.after["domain"], event.changed) == (None, ("domain",))


def test_wrong_fields_are_named_by_path(send: Script) -> None:
    verdict = send("org.create", A, name="\u0000", domain="a..b", primary_address={"line1": "", "country": "XX"})
    assert verdict.wrong_fields == (
        "domain",
        "name",
        "primary_address.city",
        "primary_address.country",
        "primary_address.line1",
    )


@pytest.mark.parametrize("name", ["", "  ", "a\u0007b", "x" * 201, 5, ["x"], True])
def test_invalid_names(send: Script, name: Any) -> None:
    assert send("org.create", A, name=name).wrong_fields == ("name",)


@pytest.mark.parametrize(
    "domain", ["com", "a_b.com", "-a.com", "a-.com", "ø.no", "a" * 64 + ".no", "a." * 126 + "no", "1.2", 7]
)
def test_invalid_domains(send: Script, domain: Any) -> None:
    assert send("org.create", A, name="x", domain=domain).wrong_fields == ("domain",)


def test_a_duplicate_gets_the_first_outcome_though_the_organization_changed_since() -> None:
    it = Oracle()
    first = it.expect(A.encode(), headers(1, "org.create"), b'{"org_id":"%s","name":"Acme"}' % A.encode())
    it.expect(A.encode(), headers(2, "org.update"), b'{"org_id":"%s","name":"New"}' % A.encode())
    again = it.expect(A.encode(), headers(1, "org.create"), b'{ "name": "Acme", "org_id": "%s" }' % A.encode())
    assert (again.kind, again.outcome, again.version, again.organization) == (
        "duplicate",
        "applied",
        1,
        first.organization,
    )
    assert it.organizations[A].name == "New"


@pytest.mark.parametrize("other", [("org.update", "Acme"), ("org.create", "Other")])
def test_the_same_id_with_another_payload_or_type_changes_nothing(other: tuple[str, str]) -> None:
    it = Oracle()
    it.expect(A.encode(), headers(1, "org.create"), b'{"org_id":"%s","name":"Acme"}' % A.encode())
    body = json.dumps({"org_id": A, "name": other[1]}).encode()
    reused = it.expect(A.encode(), headers(1, other[0]), body)
    assert (reused.kind, reused.code, reused.problem) == ("reused", 422, oracle.COMMAND_ID_REUSED)
    assert it.organizations[A].version == 1


def test_a_structured_copy_of_a_binary_command_is_a_duplicate() -> None:
    it = Oracle()
    it.expect(A.encode(), headers(1, "org.create"), b'{"org_id":"%s","name":"Acme"}' % A.encode())
    envelope = {
        "specversion": "1.0",
        "id": command_id(1),
        "type": "org.create",
        "source": "/x",
        "data": {"name": "Acme", "org_id": A},
    }
    content: list[tuple[str, bytes | None]] = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    assert it.expect(A.encode(), content, json.dumps(envelope).encode()).kind == "duplicate"


@pytest.mark.parametrize(
    ("heads", "value"),
    [
        ([], b"{}"),
        ([("ce_id", None)], b"{}"),
        ([("ce_id", b"\xff\xfe")], b"{}"),
        ([("ce_id", b"not-a-uuid"), ("ce_type", b"org.create")], b"{}"),
        ([("content-type", b"application/cloudevents+json")], b"not JSON"),
        ([("content-type", b"application/cloudevents+json")], b'{"type": "org.create"}'),
    ],
)
def test_a_command_without_a_readable_id_gets_no_answer(heads: list[tuple[str, bytes | None]], value: bytes) -> None:
    assert Oracle().expect(A.encode(), heads, value) == Expected("unreadable")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (A.encode(), None),
        (A.encode(), b""),
        (A.encode(), b"not JSON"),
        (A.encode(), b"[]"),
        (A.encode(), b'{"name": "x"}'),
        (A.encode(), b'{"org_id": 5}'),
        (B.encode(), b'{"org_id": "%s", "name": "x"}' % A.encode()),
        (None, b'{"org_id": "%s", "name": "x"}' % A.encode()),
        (A.encode(), b'{"org_id": "%s", "name": "x", "n": NaN}' % A.encode()),
        (A.encode(), b'{"org_id": "%s", "name": "x", "n": %s}' % (A.encode(), b"[" * 40 + b"]" * 40)),
        (A.encode(), b'{"org_id": "%s", "name": "x", "n": "%s"}' % (A.encode(), b"x" * 65_536)),
    ],
)
def test_with_a_readable_id_the_answer_is_a_400_that_is_remembered(key: bytes | None, value: bytes | None) -> None:
    it = Oracle()
    verdict = it.expect(key, headers(1, "org.create"), value)
    assert (verdict.kind, verdict.outcome, verdict.code, verdict.version) == ("first", "rejected", 400, None)
    assert it.expect(key, headers(1, "org.create"), value).kind == "duplicate"
    assert it.expect(A.encode(), headers(1, "org.create"), b'{"org_id":"%s","name":"y"}' % A.encode()).kind == "reused"


def test_the_key_is_not_part_of_the_payload() -> None:
    it = Oracle()
    value = b'{"org_id":"%s","name":"x"}' % A.encode()
    assert it.expect(B.encode(), headers(1, "org.create"), value).code == 400
    assert it.expect(A.encode(), headers(1, "org.create"), value).kind == "duplicate"
