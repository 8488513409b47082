"""Which failures of our own code are poison, and which are a broken build."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

import pytest

from org_events.commands import COMMANDS, CreateOrganization, UpdateOrganization
from org_service.apply.breaker import Breaker, Judgement
from org_service.apply.canary import CANARIES, decide_canary, decides_nothing
from org_service.auth.policy import load_policy
from org_service.domain.fold import Fold, Plan
from org_service.domain.organization import StoredOrganization
from org_service.domain.reasons import ParkReason
from org_service.domain.requests import Rejected, Request, Unreadable
from org_service.domain.snapshot import Snapshot
from org_service.drilling.builds import Build
from org_service.errors import SystemicError
from org_service.settings import AuthSettings, WorkerSettings
from org_service.wire.commands import read
from tests.support.records import FakeRecord, record_of
from tests.unit.domain.folding import NOW, A, organization

SETTINGS = WorkerSettings(
    breaker_window_commands=200,
    breaker_failures_min=20,
    breaker_organizations_min=5,
    breaker_failures_percent_max=20,
)
BOOM = "Boom"


def commands(good: int, failing: Sequence[UUID]) -> list[FakeRecord]:
    """So many commands that are decided, each of an organization of its own; then some on which our code raises."""
    return [
        *(record_of(CreateOrganization(org_id=uuid4(), name=f"Org {n}")) for n in range(good)),
        *(record_of(CreateOrganization(org_id=org_id, name=BOOM)) for org_id in failing),
    ]


def organizations(number: int) -> list[UUID]:
    return [uuid4() for _ in range(number)]


def plan_of(
    records: Collection[FakeRecord],
    there: Mapping[UUID, StoredOrganization] = MappingProxyType({}),
    held: Mapping[UUID, int] = MappingProxyType({}),
) -> Plan:
    fold = Fold(
        Snapshot(there, {}, held, {}, {}),
        NOW,
        queued_max=10_000,
        decider=Build(lambda command: getattr(command, "name", None) == BOOM),
    )
    for record in records:
        fold.add(read(record))
    return fold.plan


def is_parked(breaker: Breaker, *lanes: Plan, canary_fails: bool = False) -> bool:
    """Whether what failed may be parked; then it is."""
    judgement = Judgement(breaker, len(lanes), lambda: canary_fails)
    try:
        for lane, plan in enumerate(lanes):
            judgement.is_allowed(lane, plan)
        for lane, plan in enumerate(lanes):
            assert judgement.is_allowed(lane, plan)
    except SystemicError:
        return False
    for plan in lanes:
        breaker.record(plan)
    return True


@pytest.mark.parametrize(
    ("good", "failing", "of", "parked"),
    [
        (0, 19, 19, True),  # few
        (0, 20, 20, False),
        (80, 20, 20, True),  # a fifth, no more
        (79, 20, 20, False),
        (3_400, 600, 600, True),  # 15 % of a large batch
        (3_000, 1_000, 1_000, False),
    ],
)
def test_many_failures_of_many_organizations_are_a_broken_build(good: int, failing: int, of: int, parked: bool) -> None:
    assert is_parked(Breaker(SETTINGS), plan_of(commands(good, organizations(failing)))) is parked


@pytest.mark.parametrize(("of", "parked"), [(4, True), (5, False)])
def test_failures_of_few_organizations_are_poison_however_many_they_are(of: int, parked: bool) -> None:
    """Of organizations that exist and are held: a create is decided at once there, so our code may raise on each."""
    some = organizations(of)
    there = {org_id: organization(org_id, f"Org {org_id}") for org_id in some}
    plan = plan_of(commands(0, some * 250), there, held=dict.fromkeys(some, 1))
    assert len(plan.defects) == of * 250
    assert is_parked(Breaker(SETTINGS), plan) is parked


def test_poison_of_one_organization_sent_a_thousand_times_is_one_failure() -> None:
    plan = plan_of(commands(0, [A] * 1_000))
    assert (len(plan.defects), len(plan.parked), plan.tried) == (1, 1_000, 1)
    assert is_parked(Breaker(SETTINGS), plan)


def test_small_batches_add_up_and_those_that_came_first_leave_the_window() -> None:
    breaker = Breaker(SETTINGS)
    for _ in range(19):
        assert is_parked(breaker, plan_of(commands(0, organizations(1))))
    assert not is_parked(breaker, plan_of(commands(0, organizations(1))))
    calm = Breaker(SETTINGS)
    for _ in range(2):
        assert is_parked(calm, plan_of(commands(160, [])))
        for _ in range(40):  # a fifth of the window; those of the first round leave it in the second
            assert is_parked(calm, plan_of(commands(0, organizations(1))))
    assert not is_parked(calm, plan_of(commands(0, organizations(1))))


def test_where_in_a_batch_a_command_failed_counts_for_the_window() -> None:
    breaker = Breaker(SETTINGS)
    early = [*commands(0, organizations(25)), *commands(200, [])]
    assert is_parked(breaker, plan_of(early))
    for _ in range(19):
        assert is_parked(breaker, plan_of(commands(0, organizations(1))))


def test_a_batch_that_comes_again_is_not_counted_twice() -> None:
    breaker = Breaker(SETTINGS)
    unreadable = [
        Unreadable(record, "why", ParkReason.HANDLER_RAISED, ZeroDivisionError())
        for record in commands(0, organizations(10))
    ]
    for _ in range(5):
        fold = Fold(Snapshot({}, {}, {}, {}, {}), NOW, queued_max=1)
        for each in unreadable:
            fold.add(each)
        assert is_parked(breaker, fold.plan)


def test_a_batch_that_was_given_back_leaves_nothing_in_the_window() -> None:
    breaker = Breaker(SETTINGS)
    plan = plan_of(commands(0, organizations(20)))
    for _ in range(3):
        assert not is_parked(breaker, plan)
    assert is_parked(breaker, plan_of(commands(200, [])))
    assert is_parked(breaker, plan_of(commands(0, organizations(19))))


def test_what_waits_or_was_known_or_is_no_command_says_nothing_about_our_code() -> None:
    held = organizations(100)
    waiting = [record_of(UpdateOrganization(org_id=each, name="Later")) for each in held]
    broken = [FakeRecord(each.key, b"{", each.headers) for each in commands(100, [])]
    assert all(isinstance(request, Request) and isinstance(request.command, Rejected) for request in map(read, broken))
    plan = plan_of([*waiting, *broken, *commands(0, organizations(20))], held=dict.fromkeys(held, 1))
    assert (len(plan.parked), len(plan.journal), plan.tried) == (120, 100, 20)
    assert not is_parked(Breaker(SETTINGS), plan)


def test_the_lanes_of_a_batch_are_judged_together() -> None:
    few, many = plan_of(commands(25, organizations(15))), plan_of(commands(10, organizations(10)))
    assert is_parked(Breaker(SETTINGS), few)
    assert is_parked(Breaker(SETTINGS), many)
    assert not is_parked(Breaker(SETTINGS), few, many)
    assert not is_parked(Breaker(SETTINGS), many, few)
    assert is_parked(Breaker(SETTINGS), few, many, plan_of(commands(100, [])))


async def test_a_lane_with_failures_waits_for_the_others_but_not_for_one_that_ended() -> None:
    judgement = Judgement(Breaker(SETTINGS), 2, lambda: False)
    failing = plan_of(commands(0, organizations(1)))
    assert not judgement.is_allowed(0, failing)
    judgement.leave(1)
    await judgement.wait()
    assert judgement.is_allowed(0, failing)


def test_a_part_of_a_lane_that_was_allowed_is_allowed() -> None:
    """The database rejected something in it, so it was halved: the failures may all lie in one half."""
    failing = commands(0, organizations(20))
    judgement = Judgement(Breaker(SETTINGS), 1, lambda: False)
    assert judgement.is_allowed(0, plan_of([*commands(80, []), *failing]))
    assert judgement.is_allowed(0, plan_of(failing))


def test_parts_that_were_decided_one_by_one_are_judged_each() -> None:
    """A statement took too long, so the lane was halved before it was decided."""
    breaker = Breaker(SETTINGS)
    judgement = Judgement(breaker, 1, lambda: False)
    half = plan_of(commands(0, organizations(15)))
    assert judgement.is_allowed(0, half)
    breaker.record(half)
    with pytest.raises(SystemicError):
        judgement.is_allowed(0, plan_of(commands(0, organizations(15))))


def test_a_lane_that_fails_on_more_at_the_next_try_is_judged_again() -> None:
    judgement = Judgement(Breaker(SETTINGS), 1, lambda: False)
    assert judgement.is_allowed(0, plan_of(commands(80, organizations(1))))
    with pytest.raises(SystemicError):
        judgement.is_allowed(0, plan_of(commands(0, organizations(81))))


def test_a_build_that_fails_on_known_good_commands_is_broken_at_its_first_failure() -> None:
    breaker = Breaker(SETTINGS)
    assert not is_parked(breaker, plan_of(commands(0, [A])), canary_fails=True)
    assert breaker.tripped is not None
    assert "even on a command that is known to be good (ZeroDivisionError in __call__, line " in breaker.tripped
    assert "payload" not in breaker.tripped


def test_after_a_trip_few_failures_are_no_excuse_until_our_code_works_again() -> None:
    breaker = Breaker(SETTINGS)
    assert is_parked(breaker, plan_of(commands(150, [])))
    assert not is_parked(breaker, plan_of(commands(100, organizations(50))))
    assert not is_parked(breaker, plan_of(commands(0, organizations(1))))
    assert breaker.trips == 2
    assert is_parked(breaker, plan_of(commands(4, organizations(1))))
    assert (breaker.tripped, breaker.trips) == (None, 0)
    assert is_parked(breaker, plan_of(commands(0, organizations(1))))


def test_commands_that_others_decided_meanwhile_close_no_breaker() -> None:
    breaker = Breaker(SETTINGS)
    assert not is_parked(breaker, plan_of(commands(0, organizations(20))))
    assert is_parked(breaker, plan_of([]))
    assert breaker.tripped is not None


def test_without_a_breaker_everything_is_parked() -> None:
    judgement = Judgement(None, 1, lambda: True)
    assert judgement.is_allowed(0, plan_of(commands(0, organizations(1_000))))


@pytest.mark.parametrize("policy", [None, load_policy(AuthSettings())], ids=["trusted", "by policy"])
def test_our_code_decides_the_known_good_commands_and_applies_each(policy: Any) -> None:
    assert {command.type for command, _ in CANARIES} == set(COMMANDS)
    for command, there in CANARIES:
        (row,) = decide_canary(command, there, read, None, policy).journal
        assert row.outcome == "applied"
    assert not decides_nothing(read, None, policy)


def test_a_build_that_decides_one_kind_of_command_is_not_broken_altogether() -> None:
    assert decides_nothing(read, Build(), None)
    assert not decides_nothing(read, Build(lambda command: command.type != "org.restore"), None)


def test_a_build_that_reads_nothing_is_broken_altogether() -> None:
    def reading(_: Any) -> Request:
        raise ZeroDivisionError

    assert decides_nothing(reading, None, None)
