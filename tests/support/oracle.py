"""What must become of each command, one at a time: the rules of docs/contract.md as one `if` after another.

The oracle is written from the rules alone; it was written without the service's own decisions, and shares no code with
them. It keeps three dicts: the organizations, who holds which name, and what each command id got first. Slow
is fine (some 20 microseconds a command); hard to misread is the point.

It knows no clock: times are checked elsewhere, by the chain of `before` and `after`.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn
from uuid import UUID

from tests.support import field_rules

NOT_FOUND = "urn:orgs:problem:not-found"
UNREADABLE = "urn:orgs:problem:unreadable-command"
INVALID_FIELDS = "urn:orgs:problem:invalid-fields"
COMMAND_ID_REUSED = "urn:orgs:problem:command-id-reused"
ALREADY_EXISTS = "urn:orgs:problem:already-exists"
PRECONDITION = "urn:orgs:problem:precondition-failed"
DEACTIVATED = "urn:orgs:problem:deactivated"
NAME_TAKEN = "urn:orgs:problem:name-taken"

COMMAND_TYPES = ("org.create", "org.update", "org.delete", "org.deactivate", "org.reactivate", "org.restore")
BODY_BYTES_MAX = 64 * 1024
DEPTH_MAX = 16

Headers = Iterable[tuple[str, bytes | None]]
View = dict[str, Any]
"""An organization as published, without its times."""


@dataclass(frozen=True, slots=True)
class Event:
    """The one event of an applied command."""

    type: str
    version: int
    changed: tuple[str, ...]
    before: View | None
    after: View | None


@dataclass(frozen=True, slots=True)
class Expected:
    """What must become of one record.

    `first`: this outcome is journaled. `duplicate`: the first outcome, sent again. `reused`: a 422 that is sent but
    not journaled. `unreadable`: no outcome at all, the record is parked.
    """

    kind: Literal["first", "duplicate", "reused", "unreadable"]
    command_id: str | None = None
    org_id: str | None = None
    outcome: str = ""
    code: int = 0
    version: int | None = None
    problem: str | None = None
    wrong_fields: tuple[str, ...] = ()
    organization: View | None = None
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class CommandRead:
    """A record whose command id could be read; `trouble` says why the rest could not."""

    command_id: str
    command_type: str
    digest: bytes
    org_id: str | None = None
    body: dict[str, Any] | None = None
    trouble: str | None = None


@dataclass(slots=True)
class _Organization:
    name: str
    domain: str | None
    primary_address: dict[str, Any] | None
    deactivated: bool
    deleted: bool
    version: int

    def view(self, org_id: str) -> View | None:
        if self.deleted:
            return None
        return {
            "id": org_id,
            "name": self.name,
            "domain": self.domain,
            "primary_address": self.primary_address,
            "deactivated": self.deactivated,
            "version": self.version,
        }


class Unreadable(Exception):
    """Not even the command id can be read."""


class Oracle:
    """Takes records in order, says what must become of each."""

    def __init__(self) -> None:
        self.organizations: dict[str, _Organization] = {}
        self.names: dict[str, str] = {}
        self.seen: dict[str, tuple[bytes, Expected]] = {}

    def expect(self, key: bytes | None, headers: Headers, value: bytes | None) -> Expected:
        """What must become of the next record; the oracle then has taken it."""
        try:
            command = read(key, headers, value)
        except Unreadable:
            return Expected("unreadable")
        if command.command_id in self.seen:
            digest, first = self.seen[command.command_id]
            if digest == command.digest:
                return replace(first, kind="duplicate", event=None)
            return Expected("reused", command.command_id, command.org_id, "rejected", 422, problem=COMMAND_ID_REUSED)
        if command.trouble is not None:
            verdict = Expected("first", org_id=command.org_id, outcome="rejected", code=400, problem=UNREADABLE)
        else:
            verdict = self._decide(command)
        verdict = replace(verdict, command_id=command.command_id)
        self.seen[command.command_id] = (command.digest, verdict)
        return verdict

    def state(self) -> dict[str, View]:
        """The organizations that are not deleted, by id."""
        views = ((org_id, organization.view(org_id)) for org_id, organization in self.organizations.items())
        return {org_id: view for org_id, view in views if view is not None}

    def _decide(self, command: CommandRead) -> Expected:
        assert command.org_id is not None
        assert command.body is not None
        if command.command_type == "org.create":
            return self._create(command.org_id, command.body)
        return self._on_existing(command.command_type, command.org_id, command.body)

    def _create(self, org_id: str, body: dict[str, Any]) -> Expected:
        fields, wrong = field_rules.present({"name": None} | body, field_rules.FIELDS)
        existing = self.organizations.get(org_id)
        version = existing.version if existing else None
        if wrong:
            return _rejected(org_id, 422, INVALID_FIELDS, version, wrong)
        if existing:
            return _rejected(org_id, 409, ALREADY_EXISTS, version)
        if field_rules.name_key(fields["name"]) in self.names:
            return _rejected(org_id, 409, NAME_TAKEN, None)
        organization = _Organization(
            fields["name"],
            fields.get("domain"),
            fields.get("primary_address"),
            deactivated=False,
            deleted=False,
            version=0,
        )
        return self._apply(org_id, "org.created", None, organization)

    def _on_existing(self, command_type: str, org_id: str, body: dict[str, Any]) -> Expected:
        organization = self.organizations.get(org_id)
        if organization is None:
            return _rejected(org_id, 404, NOT_FOUND, None)
        if organization.deleted and command_type != "org.restore":
            return _rejected(org_id, 404, NOT_FOUND, None)
        preconditions, wrong = field_rules.present(body, field_rules.PRECONDITIONS)
        fields: dict[str, Any] = {}
        if command_type == "org.update":
            fields, wrong_fields = field_rules.present(body, field_rules.FIELDS)
            wrong = wrong + wrong_fields
        if wrong:
            return _rejected(org_id, 422, INVALID_FIELDS, organization.version, wrong)
        if not _hold(preconditions, organization):
            return _rejected(org_id, 409, PRECONDITION, organization.version)
        if command_type == "org.update" and organization.deactivated:
            return _rejected(org_id, 409, DEACTIVATED, organization.version)

        changed = _carry_out(command_type, fields, organization)
        if changed == organization:
            view = organization.view(org_id)
            return Expected("first", None, org_id, "unchanged", 200, organization.version, organization=view)
        if not changed.deleted and self.names.get(field_rules.name_key(changed.name), org_id) != org_id:
            return _rejected(org_id, 409, NAME_TAKEN, organization.version)
        return self._apply(org_id, f"{command_type}d", organization, changed)

    def _apply(
        self, org_id: str, event_type: str, organization: _Organization | None, changed: _Organization
    ) -> Expected:
        before = organization.view(org_id) if organization else None
        changed.version += 1
        after = changed.view(org_id)
        if organization and not organization.deleted:
            del self.names[field_rules.name_key(organization.name)]
        if not changed.deleted:
            self.names[field_rules.name_key(changed.name)] = org_id
        self.organizations[org_id] = changed
        event = Event(event_type, changed.version, _differing(before, after), before, after)
        return Expected("first", None, org_id, "applied", 200, changed.version, organization=after, event=event)


def _rejected(org_id: str, code: int, problem: str, version: int | None, wrong: Iterable[str] = ()) -> Expected:
    return Expected("first", None, org_id, "rejected", code, version, problem, tuple(sorted(wrong)))


def _carry_out(command_type: str, fields: dict[str, Any], organization: _Organization) -> _Organization:
    changed = replace(organization)
    if command_type == "org.update":
        for field, value in fields.items():
            setattr(changed, field, value)
    elif command_type == "org.delete":
        changed.deleted = True
    elif command_type == "org.restore":
        changed.deleted = False
    elif command_type == "org.deactivate":
        changed.deactivated = True
    elif command_type == "org.reactivate":
        changed.deactivated = False
    return changed


def _hold(preconditions: dict[str, Any], organization: _Organization) -> bool:
    expected = preconditions.get("expected_version")
    if expected is not None and expected != organization.version:
        return False
    return all(getattr(organization, field) == value for field, value in preconditions.get("if_current", {}).items())


def _differing(before: View | None, after: View | None) -> tuple[str, ...]:
    """Which fields differ; an organization that isn't there counts as all null and not deactivated."""
    nothing = {"name": None, "domain": None, "primary_address": None, "deactivated": False}
    return tuple(field for field in nothing if (before or nothing)[field] != (after or nothing)[field])


def read(key: bytes | None, headers: Headers, value: bytes | None) -> CommandRead:
    """Read a record as a command.

    Raises:
        Unreadable: Nobody could be answered.
    """
    found = {name: content for name, content in headers if content is not None}
    trouble = None
    if found.get("content-type", b"").lower().startswith(b"application/cloudevents+json"):
        identity, command_type, data = _structured(value)
    else:
        if _several(headers, "ce_id"):
            raise Unreadable
        if _several(headers, "ce_type", "ce_actor"):
            trouble = "it contradicts itself"
        actor = _text(found.get("ce_actor", b""))
        if actor is None or not actor.isprintable():
            trouble = "nobody is called like this"
        identity = _text(found.get("ce_id"))
        command_type = _text(found.get("ce_type"))
        data = value or b""
    try:
        command_id = str(UUID(identity))
    except (TypeError, ValueError, AttributeError):
        raise Unreadable from None
    try:
        body = _json(data)
        json.dumps(body, ensure_ascii=False).encode()  # a lone surrogate is no text
    except (ValueError, RecursionError):
        body = None
        digest = _digest(command_type, data)
    else:
        digest = _digest(command_type, json.dumps(body, sort_keys=True).encode())
    command = _address_to(key, CommandRead(command_id, command_type or "", digest), body, len(data))
    return command if trouble is None else replace(command, trouble=trouble)


def _several(headers: Headers, *names: str) -> bool:
    """Whether one of these headers is there with different contents."""
    return any(len({content for name, content in headers if name == each}) > 1 for each in names)


def attribute(headers: Headers, value: bytes | None, name: str) -> str | None:
    """An attribute of a readable command that isn't judged here: `actor`, or `traceparent` (a header without `ce_`)."""
    found = {header: content for header, content in headers if content is not None}
    if found.get("content-type", b"").lower().startswith(b"application/cloudevents+json"):
        content = json.loads(value or b"{}").get(name)
        if content is not None:
            return str(content)
    return _text(found.get("traceparent" if name == "traceparent" else f"ce_{name}"))


def _address_to(key: bytes | None, command: CommandRead, body: Any, body_bytes: int) -> CommandRead:
    """Find out which organization a command is for; all of this is 400."""
    org_id = _org_id(body)
    if org_id is None:
        return replace(command, trouble="no organization id")
    command = replace(command, org_id=org_id, body=body)
    if command.command_type not in COMMAND_TYPES:
        return replace(command, trouble="unknown type")
    if key != org_id.encode():
        return replace(command, trouble="the key is not the organization id")
    if body_bytes > BODY_BYTES_MAX or _depth(body) > DEPTH_MAX:
        return replace(command, trouble="too large")
    return command


def _org_id(body: Any) -> str | None:
    if not isinstance(body, dict) or not isinstance(body.get("org_id"), str):
        return None
    try:
        return str(UUID(body["org_id"]))
    except ValueError:
        return None


def _structured(value: bytes | None) -> tuple[Any, Any, bytes]:
    try:
        envelope = _json(value or b"")
    except ValueError:
        raise Unreadable from None
    if not isinstance(envelope, dict):
        raise Unreadable
    data = json.dumps(envelope["data"]).encode() if "data" in envelope else b""
    return envelope.get("id"), envelope.get("type"), data


def _text(content: bytes | None) -> str | None:
    try:
        return content.decode() if content is not None else None
    except UnicodeDecodeError:
        return None


def _json(data: bytes) -> Any:
    """Strict JSON: no NaN, no Infinity."""

    def reject(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        return json.loads(data, parse_constant=reject)
    except RecursionError as error:
        raise ValueError from error


def _digest(command_type: str | None, data: bytes) -> bytes:
    return hashlib.sha256(f"{command_type}\n".encode() + data).digest()


def _depth(content: Any) -> int:
    if isinstance(content, dict):
        return 1 + max(map(_depth, content.values()), default=0)
    if isinstance(content, list):
        return 1 + max(map(_depth, content), default=0)
    return 0
