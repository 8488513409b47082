"""Whose a request is before any key is looked at, and which requests wait for keys."""

import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from uuid import UUID

import pytest

from org_events.cloudevents import command_headers
from org_events.commands import UpdateOrganization
from org_service.apply.authenticator import Authenticator
from org_service.auth import key_sources
from org_service.domain.requests import Rejected, Request
from org_service.settings import AuthSettings
from org_service.wire.commands import read
from tests.support.issuer import Signer, auth, ed_key, jwks
from tests.support.records import FakeRecord
from tests.support.waiting import until

ORG = UUID("0b5c6f0e-0000-4000-8000-00000000000a")
COMMAND = UUID("11111111-1111-4111-8111-111111111111")
UPDATE = UpdateOrganization(org_id=ORG, name="Acme")


def admitted(settings: AuthSettings, *headers: tuple[str, bytes | None], value: bytes = UPDATE.to_body()) -> Request:
    sent = command_headers(command_id=COMMAND, command_type=UPDATE.type, source="/tests", actor="mallory")
    (request,) = Authenticator(settings).admit([read(FakeRecord(str(ORG).encode(), value, [*sent, *headers]))])
    assert isinstance(request, Request)
    return request


def test_a_trusted_publisher_says_who_acts() -> None:
    request = admitted(AuthSettings(commands="trusted"))
    assert (request.command, request.actor, request.user_id) == (UPDATE, "mallory", None)


@pytest.mark.parametrize("name", ["authorization", "Authorization", "AUTHORIZATION"])
@pytest.mark.parametrize("content", [None, b"", b" ", b"Bearer ", b"Basic YTpi"])
@pytest.mark.parametrize("issuer", [False, True], ids=["no issuer", "issuer"])
def test_an_invalid_token_is_rejected_and_never_treated_as_missing(
    tmp_path: Path, name: str, content: bytes | None, issuer: bool
) -> None:
    settings = auth(tmp_path, ed_key(), commands="trusted") if issuer else AuthSettings(commands="trusted")
    request = admitted(settings, (name, content))
    assert isinstance(request.command, Rejected)
    assert (request.command.problem, request.actor) == ("urn:orgs:problem:unauthenticated", None)


@pytest.mark.parametrize("headers", [[], [("Authorization", b"Bearer x.y.z")]])
def test_nobody_is_the_actor_of_a_rejection_in_tokens_mode(tmp_path: Path, headers: list[tuple[str, bytes]]) -> None:
    request = admitted(auth(tmp_path, ed_key()), *headers, value=b"{")
    assert isinstance(request.command, Rejected)
    assert (request.command.problem, request.actor) == ("urn:orgs:problem:unreadable-command", None)


@pytest.mark.parametrize(("headers", "actor"), [([], "mallory"), ([("Authorization", b"Bearer x.y.z")], None)])
def test_a_trusted_publisher_is_the_actor_of_a_rejection_unless_it_sent_a_token(
    headers: list[tuple[str, bytes]], actor: str | None
) -> None:
    request = admitted(AuthSettings(commands="trusted"), *headers, value=b"{")
    assert isinstance(request.command, Rejected)
    assert request.actor == actor


OLD, NEW = ed_key("old"), ed_key("new")


@pytest.fixture
async def authenticator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Authenticator]:
    """Knows one key, and reads the file again only when it must."""
    monkeypatch.setattr(key_sources, "FILE_CHECK_INTERVAL_S", 3600)
    authenticator = Authenticator(auth(tmp_path, OLD))
    await authenticator.start()
    yield authenticator
    await authenticator.close()


def signed(signer: Signer, partition: int, offset: int, age_s: float = 0) -> Request:
    """A request that the broker took so many seconds ago."""
    at_s = time.time() - age_s
    token = signer.token(iat=int(at_s) - 60, nbf=None, exp=int(at_s) + 60)
    headers = command_headers(
        command_id=COMMAND, command_type=UPDATE.type, source="/tests", authorization=f"Bearer {token.decode()}"
    )
    record = FakeRecord(str(ORG).encode(), UPDATE.to_body(), headers, partition, offset, timestamp=int(at_s * 1000))
    request = read(record)
    assert isinstance(request, Request)
    return request


def outcomes(authenticator: Authenticator, requests: Iterable[Request]) -> list[tuple[int, int, str | None]]:
    """Partition, offset and user of those that were admitted; no user is a rejection."""
    admitted = authenticator.admit(requests)
    return [(each.record.partition, each.record.offset, getattr(each, "user_id", None)) for each in admitted]


async def may_go_on(authenticator: Authenticator, partition: int) -> None:
    await until(lambda: authenticator.may_go_on(partition))


async def test_a_partition_waits_from_the_first_record_on_that_no_key_verifies(
    authenticator: Authenticator, tmp_path: Path
) -> None:
    batch = [signed(OLD, 0, 7), signed(NEW, 0, 8), signed(OLD, 1, 3), signed(OLD, 0, 9)]
    assert outcomes(authenticator, batch) == [(0, 7, "ann"), (1, 3, "ann")]
    assert outcomes(authenticator, [signed(OLD, 0, 10), signed(OLD, 1, 4)]) == [(1, 4, "ann")]
    assert {partition: wait.offset for partition, wait in authenticator.waiting.items()} == {0: 8}
    assert not authenticator.may_go_on(0), "nothing was read since"
    (tmp_path / "jwks.json").write_bytes(jwks(OLD, NEW))
    await may_go_on(authenticator, 0)
    authenticator.go_on(0)
    again = [batch[1], batch[3], signed(OLD, 0, 10)]
    assert outcomes(authenticator, again) == [(0, 8, "ann"), (0, 9, "ann"), (0, 10, "ann")]
    assert not authenticator.waiting


async def test_one_read_of_keys_rejects_every_record_received_before_it(authenticator: Authenticator) -> None:
    batch = [signed(NEW, 0, offset) for offset in range(3)]
    assert outcomes(authenticator, batch) == []
    await may_go_on(authenticator, 0)
    authenticator.go_on(0)
    assert outcomes(authenticator, [*batch, signed(NEW, 0, 3)]) == [(0, 0, None), (0, 1, None), (0, 2, None)]
    assert authenticator.waiting[0].offset == 3, "it came after the read"


async def test_records_received_after_the_read_do_not_make_the_first_one_wait_again(
    authenticator: Authenticator,
) -> None:
    first, late = signed(NEW, 0, 0), signed(NEW, 0, 1)
    assert outcomes(authenticator, [first]) == []
    await may_go_on(authenticator, 0)
    assert outcomes(authenticator, [late]) == [], "a batch that was on its way"
    authenticator.go_on(0)
    assert outcomes(authenticator, [first, late]) == [(0, 0, None)]
    assert authenticator.waiting[0].offset == 1


async def test_after_partitions_moved_nothing_waits_and_no_arrival_is_remembered(authenticator: Authenticator) -> None:
    batch = [signed(NEW, 0, 5)]
    outcomes(authenticator, batch)
    await may_go_on(authenticator, 0)
    authenticator.go_on(0)
    outcomes(authenticator, [signed(NEW, 1, 0)])
    authenticator.forget()
    assert not authenticator.waiting
    assert outcomes(authenticator, [signed(OLD, 1, 8)]) == [(1, 8, "ann")]
    assert outcomes(authenticator, batch) == [], "offset 5 may be another record now"


@pytest.mark.parametrize(("age_s", "waits"), [(0, True), (4, True), (10, False), (100_000, False)])
async def test_a_record_is_rejected_at_once_if_keys_were_read_after_it_allowing_for_clock_skew(
    authenticator: Authenticator, age_s: float, waits: bool
) -> None:
    """They differ by up to 5 s."""
    assert outcomes(authenticator, [signed(NEW, 0, 0, age_s)]) == ([] if waits else [(0, 0, None)])


async def test_a_key_that_is_listed_again_for_a_replay_counts_though_others_were_read_since_the_record(
    tmp_path: Path, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticator, "_fresh_s", 0.0)  # as if the last read was long ago
    old = signed(NEW, 0, 0, age_s=100_000)
    assert outcomes(authenticator, [old]) == []
    (tmp_path / "jwks.json").write_bytes(jwks(OLD, NEW))
    await may_go_on(authenticator, 0)
    authenticator.go_on(0)
    assert outcomes(authenticator, [old]) == [(0, 0, "ann")]
