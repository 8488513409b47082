"""Whose a request is before any key is looked at."""

from pathlib import Path
from uuid import UUID

import pytest

from org_events.cloudevents import command_headers
from org_events.commands import UpdateOrganization
from org_service.settings import Auth
from org_service.worker.gate import Gate
from org_service.worker.records import Refused, Request, read
from tests.support.issuer import auth, ed_key
from tests.support.records import FakeRecord

ORG = UUID("0b5c6f0e-0000-4000-8000-00000000000a")
COMMAND = UUID("11111111-1111-4111-8111-111111111111")
UPDATE = UpdateOrganization(org_id=ORG, name="Acme")


def admitted(settings: Auth, *headers: tuple[str, bytes | None], value: bytes = UPDATE.to_body()) -> Request:
    sent = command_headers(command_id=COMMAND, command_type=UPDATE.type, source="/tests", actor="mallory")
    request = Gate(settings).admit(read(FakeRecord(str(ORG).encode(), value, [*sent, *headers])))
    assert isinstance(request, Request)
    return request


def test_a_trusted_publisher_says_who_acts() -> None:
    request = admitted(Auth(commands="trusted"))
    assert (request.command, request.actor, request.user_id) == (UPDATE, "mallory", None)


@pytest.mark.parametrize("name", ["authorization", "Authorization", "AUTHORIZATION"])
@pytest.mark.parametrize("content", [None, b"", b" ", b"Bearer ", b"Basic YTpi"])
@pytest.mark.parametrize("issuer", [False, True], ids=["no issuer", "issuer"])
def test_what_is_no_token_is_refused_and_never_no_token(
    tmp_path: Path, name: str, content: bytes | None, issuer: bool
) -> None:
    settings = auth(tmp_path, ed_key(), commands="trusted") if issuer else Auth(commands="trusted")
    request = admitted(settings, (name, content))
    assert isinstance(request.command, Refused)
    assert (request.command.problem, request.actor) == ("urn:orgs:problem:unauthenticated", None)


@pytest.mark.parametrize("headers", [[], [("Authorization", b"Bearer x.y.z")]])
def test_nobody_is_the_actor_of_a_refusal_in_tokens_mode(tmp_path: Path, headers: list[tuple[str, bytes]]) -> None:
    request = admitted(auth(tmp_path, ed_key()), *headers, value=b"{")
    assert isinstance(request.command, Refused)
    assert (request.command.problem, request.actor) == ("urn:orgs:problem:unreadable-command", None)


@pytest.mark.parametrize(("headers", "actor"), [([], "mallory"), ([("Authorization", b"Bearer x.y.z")], None)])
def test_a_trusted_publisher_is_the_actor_of_a_refusal_unless_it_sent_a_token(
    headers: list[tuple[str, bytes]], actor: str | None
) -> None:
    request = admitted(Auth(commands="trusted"), *headers, value=b"{")
    assert isinstance(request.command, Refused)
    assert request.actor == actor
