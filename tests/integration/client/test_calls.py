"""One command at a time: its outcome, its retry, its place on the wire."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from org_events import Address, IfCurrent, Outcome, Topics, UpdateOrganization
from org_events.publishing import ClientCredentials, OrganizationClient, OutcomeUnknown, TokenUnavailable
from tests.integration.client.answering import AnsweringService, Received, result
from tests.support.token_server import TokenServer

pytestmark = pytest.mark.integration

ORG = UUID("0192d3a0-0000-7000-8000-000000000001")
PROBLEM = {
    "type": "urn:orgs:problem:precondition-failed",
    "title": "A precondition does not hold",
    "status": 409,
    "detail": "expected_version is 7, the organization has version 8.",
    "errors": [],
}


def silent(_: Received) -> None:
    return None


async def test_one_call_gives_the_outcome(service: AnsweringService, orgs: OrganizationClient) -> None:
    outcome = await orgs.update(ORG, name="Acme", expected_version=7)
    assert (outcome.outcome, outcome.code, outcome.final) == (Outcome.APPLIED, 200, True)
    assert outcome.org_id == ORG
    assert str(outcome.command_id) == service.received[0].command_id


async def test_a_rejection_is_a_value(service: AnsweringService, orgs: OrganizationClient) -> None:
    service.answer = lambda command: result(command, outcome="rejected", code=409, version=8, problem=PROBLEM)
    outcome = await orgs.update(ORG, name="Acme", expected_version=7)
    assert (outcome.outcome, outcome.code, outcome.version) == (Outcome.REJECTED, 409, 8)
    assert outcome.problem is not None
    assert outcome.problem.detail == "expected_version is 7, the organization has version 8."


CALLS: dict[str, tuple[Callable[[OrganizationClient], Awaitable[Any]], dict[str, Any]]] = {
    "org.create": (
        lambda orgs: orgs.create(
            ORG, name="Acme", domain=None, primary_address=Address(line1="1", city="Oslo", country="NO")
        ),
        {"name": "Acme", "domain": None, "primary_address": {"line1": "1", "city": "Oslo", "country": "NO"}},
    ),
    "org.update": (lambda orgs: orgs.update(ORG, domain=None), {"domain": None}),
    "org.delete": (
        lambda orgs: orgs.delete(ORG, if_current=IfCurrent(domain=None)),
        {"if_current": {"domain": None}},
    ),
    "org.deactivate": (lambda orgs: orgs.deactivate(ORG), {}),
    "org.reactivate": (lambda orgs: orgs.reactivate(ORG, expected_version=3), {"expected_version": 3}),
    "org.restore": (lambda orgs: orgs.restore(ORG), {}),
}


@pytest.mark.parametrize("command_type", CALLS)
async def test_each_typed_call_sends_its_command(
    service: AnsweringService, orgs: OrganizationClient, command_type: str
) -> None:
    call, body = CALLS[command_type]
    await call(orgs)
    (received,) = service.received
    assert received.type == command_type
    assert received.body == {"org_id": str(ORG)} | body
    assert received.key == b"0192d3a0-0000-7000-8000-000000000001"


async def test_headers_carry_source_actor_token_and_trace(
    service: AnsweringService, bootstrap_servers: str, topics: Topics
) -> None:
    tokens = iter(["first", "second"])
    async with OrganizationClient(
        bootstrap_servers=bootstrap_servers,
        source="/billing",
        topics=topics,
        token=lambda: next(tokens),
        traceparent=lambda: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ) as orgs:
        await orgs.deactivate(ORG)
        await orgs.reactivate(ORG)
        await orgs.on_behalf_of("ada").delete(ORG)
    first, second, third = service.received
    assert first.headers == {
        "ce_specversion": b"1.0",
        "ce_id": first.command_id.encode(),
        "ce_type": b"org.deactivate",
        "ce_source": b"/billing",
        "content-type": b"application/json",
        "authorization": b"Bearer first",
        "traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    assert second.headers["authorization"] == b"Bearer second"
    assert third.headers["ce_actor"] == b"ada"
    assert "authorization" not in third.headers


async def test_a_token_may_be_waited_for_but_not_for_longer_than_the_outcome(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    async with TokenServer() as issuer:
        mine = orgs.on_behalf_of(token=ClientCredentials(issuer.url, "billing", "s3cret"))
        await mine.deactivate(ORG)
        await mine.reactivate(ORG)
        issuer.may_answer.clear()
        late = orgs.on_behalf_of(token=ClientCredentials(issuer.url, "billing", "s3cret"))
        with pytest.raises(TokenUnavailable, match="No token came in time; nothing was sent"):
            await late.delete(ORG, timeout_s=0.2)
    await orgs.restore(ORG)
    tokens = [(each.type, each.headers.get("authorization")) for each in service.received]
    assert tokens == [
        ("org.deactivate", b"Bearer token-1"),
        ("org.reactivate", b"Bearer token-1"),
        ("org.restore", None),
    ]


async def test_a_token_function_that_fails_is_heard_and_nothing_is_sent(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    async def failing() -> str:
        raise TimeoutError("of the function itself")

    with pytest.raises(TimeoutError, match="of the function itself"):
        await orgs.on_behalf_of(token=failing).delete(ORG)
    await orgs.restore(ORG)
    assert [each.type for each in service.received] == ["org.restore"]


async def test_a_wrong_field_is_rejected_before_anything_is_sent(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    with pytest.raises(ValidationError, match="too_few_labels"):
        await orgs.update(ORG, domain="acme")
    await orgs.restore(ORG)
    assert [command.type for command in service.received] == ["org.restore"]


async def test_after_a_time_out_the_same_command_id_gets_the_outcome(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    service.answer = silent
    with pytest.raises(OutcomeUnknown, match="again with the same command id: that is safe") as caught:
        await orgs.update(ORG, name="Acme", timeout_s=0.5)
    unknown = caught.value
    assert unknown.command is not None

    service.answer = result
    outcome = await orgs.execute(unknown.command, command_id=unknown.command_id)
    assert outcome.command_id == unknown.command_id
    first, second = service.received
    assert (first.command_id, first.value) == (second.command_id, second.value)


async def test_an_outcome_that_comes_after_the_time_out_is_kept(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    service.answer = silent
    with pytest.raises(OutcomeUnknown) as caught:
        await orgs.update(ORG, name="Acme", timeout_s=0.5)
    await service.publish(result(service.received[0]))
    outcome = await orgs.outcome(caught.value.command_id)
    assert outcome.outcome is Outcome.APPLIED
    assert len(service.received) == 1


async def test_a_retry_does_not_take_the_outcome_of_an_earlier_sending(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    command_id = uuid4()
    await orgs.send(UpdateOrganization(org_id=ORG, name="A"), command_id=command_id)
    # Decided after it, so its outcome came before this one; nobody has asked for it yet.
    await orgs.restore(ORG)
    service.answers.clear()
    service.answer = lambda command: result(command, outcome="rejected", code=422)
    outcome = await orgs.execute(UpdateOrganization(org_id=ORG, name="B"), command_id=command_id)
    assert outcome.code == 422


async def test_a_command_sent_without_waiting_may_be_asked_for_later(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    command_id = uuid4()
    sent = await orgs.send(UpdateOrganization(org_id=ORG, name="Acme"), command_id=command_id)
    assert sent.command_id == command_id
    await orgs.restore(ORG)
    (first, _) = service.received
    assert (sent.partition, sent.offset) == (first.partition, first.offset)
    outcome = await orgs.outcome(command_id)
    assert outcome.command_id == command_id


async def test_a_parked_outcome_is_handed_out_and_the_final_one_may_be_waited_for(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    service.answer = lambda command: result(command, outcome="parked", code=500, final=False, position=None)
    parked = await orgs.update(ORG, name="Acme")
    assert (parked.outcome, parked.final) == (Outcome.PARKED, False)
    waiting = asyncio.create_task(orgs.outcome(parked.command_id))
    await service.publish(result(service.received[0]))
    final = await waiting
    assert (final.outcome, final.final) == (Outcome.APPLIED, True)


async def test_the_final_outcome_that_comes_before_anybody_asks_for_it_is_kept(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    service.answer = lambda command: result(command, outcome="parked", code=500, final=False, position=None)
    parked = await orgs.update(ORG, name="Acme")
    await service.publish(result(service.received[0]))
    service.answer = result
    await orgs.update(ORG, name="Acme Corporation")  # its outcome is read behind the final one
    final = await orgs.outcome(parked.command_id)
    assert (final.outcome, final.final) == (Outcome.APPLIED, True)


async def test_results_of_other_publishers_and_of_aborted_transactions_are_passed_over(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    service.answer = silent
    waiting = asyncio.create_task(orgs.update(ORG, name="Acme"))
    await service.arrived(1)
    mine = result(service.received[0])
    await service.publish(*(mine | {"command_id": str(uuid4())} for _ in range(50)))
    await service.abort(mine | {"outcome": "rejected", "code": 409})
    await service.publish(mine)
    assert (await waiting).code == 200


async def test_concurrent_calls_get_their_own_outcomes(service: AnsweringService, orgs: OrganizationClient) -> None:
    service.answer = lambda command: result(command, version=int(command.body["name"]))
    outcomes = await asyncio.gather(*(orgs.update(uuid4(), name=str(n)) for n in range(1, 101)))
    assert [outcome.version for outcome in outcomes] == list(range(1, 101))


async def test_sends_awaited_one_after_the_other_keep_their_order(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    for number in range(100):
        await orgs.send(UpdateOrganization(org_id=ORG, name=str(number)))
    await orgs.restore(ORG)
    assert [command.body["name"] for command in service.received[:-1]] == [str(number) for number in range(100)]
