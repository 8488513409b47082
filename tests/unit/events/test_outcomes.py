"""Which outcomes a client waits for, and which it remembers."""

import asyncio
from uuid import UUID

import pytest

from org_events.publishing.client import OrganizationClient
from org_events.publishing.errors import ClientError, OutcomeUnknown
from org_events.publishing.outcomes import Expected

A, B, C = (UUID(int=n) for n in (1, 2, 3))
A_KEY, B_KEY, C_KEY = (f"00000000-0000-0000-0000-00000000000{n}".encode() for n in (1, 2, 3))


async def test_a_result_completes_only_the_call_that_waits_for_it() -> None:
    expected = Expected()
    a, b = expected.expect(A), expected.expect(B)
    expected.settle(A_KEY, b"{}")
    expected.settle(C_KEY, b"{}")
    assert (a.result(), b.done(), len(expected)) == (b"{}", False, 2)


async def test_of_several_results_the_first_counts() -> None:
    expected = Expected()
    a = expected.expect(A)
    expected.settle(A_KEY, b"first")
    expected.settle(A_KEY, b"second")
    assert a.result() == b"first"


async def test_two_concurrent_waiters_get_the_same_result() -> None:
    expected = Expected()
    assert expected.expect(A) is expected.expect(A)


async def test_a_new_sending_does_not_see_the_result_of_an_earlier_one() -> None:
    expected = Expected()
    expected.expect(A)
    expected.settle(A_KEY, b"earlier")
    expected.leave(A)
    assert not expected.expect(A).done()


async def test_a_result_that_nobody_asked_for_is_kept() -> None:
    expected = Expected()
    expected.expect(A)
    expected.leave(A)
    expected.settle(A_KEY, b"{}")
    assert expected.claim(A).result() == b"{}"


async def test_outcomes_that_come_as_their_callers_give_up_are_kept_up_to_the_bound() -> None:
    client = OrganizationClient(bootstrap_servers="127.0.0.1:1", source="/tests")
    expected = client._connection.expected = Expected(unclaimed_max=2)
    for command_id, key in ((A, A_KEY), (B, B_KEY), (C, C_KEY)):
        outcome, deadline = expected.expect(command_id), asyncio.get_running_loop().time() + 30
        waiting = asyncio.create_task(client._result(command_id, outcome, deadline, None))
        await asyncio.sleep(0)
        expected.settle(key, b"{}")
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
    assert len(expected) == 2
    assert expected.claim(C).result() == b"{}"


async def test_the_oldest_unclaimed_outcome_is_dropped_first() -> None:
    expected = Expected(unclaimed_max=2)
    for command_id in (A, B, C):
        expected.expect(command_id)
    for command_id in (B, A, B, C):
        expected.leave(command_id)
    for key in (A_KEY, B_KEY, C_KEY):
        expected.settle(key, b"{}")
    assert len(expected) == 2
    assert [expected.claim(command_id).done() for command_id in (A, B, C)] == [False, True, True]


async def test_a_waiting_call_is_never_dropped_for_unclaimed_outcomes() -> None:
    expected = Expected(unclaimed_max=1)
    waiting = expected.expect(A)
    expected.leave(A)
    assert expected.claim(A) is waiting
    for number in range(100, 200):
        expected.expect(UUID(int=number))
        expected.leave(UUID(int=number))
    expected.settle(A_KEY, b"{}")
    assert waiting.result() == b"{}"
    assert len(expected) == 2


async def test_a_returned_outcome_is_forgotten() -> None:
    expected = Expected()
    expected.forget(A, expected.expect(A))
    expected.leave(A)
    assert len(expected) == 0


async def test_a_new_sending_is_not_forgotten_with_the_outcome_of_an_earlier_one() -> None:
    expected = Expected()
    earlier = expected.expect(A)
    expected.settle(A_KEY, b"earlier")
    again = expected.expect(A)
    expected.forget(A, earlier)
    expected.settle(A_KEY, b"{}")
    assert again.result() == b"{}"


PARKED = b'{"outcome":"parked","position":null,"final":false}'
FINAL = b'{"outcome":"applied","position":1,"final":true}'


async def test_the_final_outcome_of_a_parked_command_waits_for_who_asks_next() -> None:
    expected = Expected()
    parked = expected.expect(A)
    expected.settle(A_KEY, PARKED)
    expected.forget(A, parked, is_final=False)
    expected.settle(A_KEY, FINAL)
    final = expected.claim(A)
    assert (parked.result(), final.result()) == (PARKED, FINAL)
    expected.forget(A, final)
    assert len(expected) == 0


async def test_a_final_outcome_that_comes_in_the_same_breath_as_the_parked_one_is_not_lost() -> None:
    expected = Expected(unclaimed_max=1)
    parked = expected.expect(A)
    expected.settle(A_KEY, PARKED)
    expected.settle(A_KEY, FINAL)
    expected.settle(A_KEY, PARKED)
    expected.forget(A, parked, is_final=False)
    assert (parked.result(), expected.claim(A).result()) == (PARKED, FINAL)


async def test_final_outcomes_that_nobody_asks_for_are_kept_up_to_the_bound() -> None:
    expected = Expected(unclaimed_max=1)
    for command_id, key in ((A, A_KEY), (B, B_KEY)):
        parked = expected.expect(command_id)
        expected.settle(key, PARKED)
        expected.settle(key, FINAL)
        expected.forget(command_id, parked, is_final=False)
    assert (len(expected), expected.claim(B).done()) == (1, True)


async def test_another_request_under_the_id_of_a_parked_command_does_not_wait_for_the_operator() -> None:
    expected = Expected()
    parked = expected.expect(A, request=1)
    expected.settle(A_KEY, PARKED)
    expected.forget(A, parked, is_final=False)
    assert await expected.wait_turn(A, 2, deadline=0) is None


async def test_when_results_cannot_be_read_all_waiting_calls_fail() -> None:
    expected = Expected()
    a, b = expected.expect(A), expected.expect(B)
    expected.settle(A_KEY, b"{}")
    expected.fail_all("no rights")
    assert a.result() == b"{}"
    with pytest.raises(ClientError, match="no rights"):
        b.result()
    assert len(expected) == 0


def test_an_unknown_outcome_says_what_to_do() -> None:
    assert str(OutcomeUnknown("none arrived in time", A)) == (
        "The outcome of the command 00000000-0000-0000-0000-000000000001 is unknown: none arrived in time. It may have "
        "been applied. Send the same command again with the same command id: that is safe, it takes effect at most "
        "once."
    )


async def test_another_request_under_the_same_id_waits_until_the_first_is_decided() -> None:
    expected = Expected()
    far = asyncio.get_running_loop().time() + 30
    assert await expected.wait_turn(A, 1, far) is None
    first = expected.expect(A, 1)
    assert await expected.wait_turn(A, 1, far) is None  # a repetition: both get the same
    with pytest.raises(TimeoutError):
        await expected.wait_turn(A, 2, 0.0)
    second = asyncio.create_task(expected.wait_turn(A, 2, far))
    await asyncio.sleep(0)
    assert not second.done()
    expected.settle(A_KEY, b"first")
    assert await second == b"first"
    other = expected.expect(A, 2, b"first")
    expected.settle(A_KEY, b"first")  # the copy for the repetition
    assert (first.result(), other.done()) == (b"first", False)
    expected.settle(A_KEY, b'{"position":null}')
    assert other.result() == b'{"position":null}'
    assert await expected.wait_turn(A, 3, far) is None


async def test_a_forgotten_command_leaves_nothing_behind() -> None:
    expected = Expected(unclaimed_max=1)
    far = asyncio.get_running_loop().time() + 30
    for command_id in (A, B):
        expected.expect(command_id, 1, b"other")
        expected.leave(command_id)
    assert await expected.wait_turn(A, 2, far) is None
    outcome = expected.expect(C, 1, b"other")
    expected.settle(C_KEY, b"{}")
    expected.forget(C, outcome)
    expected.fail_all("stopped")
    assert (len(expected), expected._requests, expected._others) == (0, {}, {})


def is_wanted(expected: Expected) -> bool:
    return expected.interest.wants(0)


def waiting_for(command_id: UUID = A) -> tuple[Expected, asyncio.Future[bytes]]:
    """Something that is expected on partition 0, which is the only one."""
    expected = Expected(unclaimed_max=1)
    expected.interest.learn(1)
    return expected, expected.expect(command_id, keys=(b"org",))


async def test_a_partition_is_read_until_the_final_outcome_is_there() -> None:
    expected, outcome = waiting_for()
    expected.settle(A_KEY, PARKED)
    assert is_wanted(expected)
    expected.forget(A, outcome, is_final=False)
    assert is_wanted(expected)
    expected.settle(A_KEY, FINAL)
    assert not is_wanted(expected)


async def test_a_partition_is_read_for_outcomes_that_may_be_asked_for_later() -> None:
    expected, _ = waiting_for()
    expected.leave(A)
    assert is_wanted(expected)
    expected.expect(B, keys=(b"org",))
    expected.settle(B_KEY, FINAL)
    assert is_wanted(expected)
    expected.leave(B)  # one too many is remembered: the first is dropped
    assert not is_wanted(expected)


async def test_no_partition_is_read_for_what_was_not_sent() -> None:
    expected, outcome = waiting_for()
    expected.withdraw(A)
    assert (is_wanted(expected), len(expected)) == (False, 0)
    expected, outcome = waiting_for()
    expected.fail(A, outcome, ClientError("Kafka refuses it"))
    assert outcome.exception()
    assert not is_wanted(expected)


async def test_what_was_not_sent_may_have_been_sent_before() -> None:
    expected, outcome = waiting_for()
    assert expected.expect(A, keys=(b"org",)) is outcome
    expected.withdraw(A)
    assert is_wanted(expected)
    expected.settle(A_KEY, FINAL)
    assert (outcome.result(), is_wanted(expected)) == (FINAL, False)


async def test_where_results_cannot_be_read_nothing_is_wanted_any_more() -> None:
    expected, _ = waiting_for()
    expected.fail_all("stopped")
    assert not is_wanted(expected)
