"""Commands that Kafka lost, some of them decided, and sent again: the checker gets one log that lost nothing."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast
from uuid import UUID

from tests.support.checker import judge
from tests.support.exact_history import NOON, ExactHistory
from tests.support.lost_commands import LostCommands
from tests.support.observed import Record
from tests.support.published import Published
from tests.support.sending import Publisher

A = str(UUID(int=10))


@dataclass
class _Notes:
    """What a publisher wrote down."""

    published: list[Published]
    records: list[Record]


def _lose(history: ExactHistory, lost: LostCommands, end: int, *undecided: Record) -> list[str | None]:
    """The log ends there now; returns the ids of what is to be sent again."""
    commands = history.observed.commands
    notes = _Notes(history.published, [*commands, *undecided])
    again = lost.take(cast("Publisher", notes), {commands[0].partition: end})
    commands[:] = notes.records
    return [each.command_id for each in again]


def _send_again(history: ExactHistory, *numbers: int) -> None:
    """The same commands, half a second after the last decision: there is one a second."""
    later = round((NOON + timedelta(seconds=history.observed.head + 0.5)).timestamp() * 1000)
    for number in numbers:
        history.send(number, "org.update", A, name=f"Acme {number}")
        history.observed.commands[-1] = replace(history.observed.commands[-1], timestamp=later)


def test_what_was_lost_and_sent_again_makes_one_log_with_what_came_after() -> None:
    history, lost = ExactHistory(), LostCommands()
    history.send(1, "org.create", A, name="Acme")
    for number in (2, 3):
        history.send(number, "org.update", A, name=f"Acme {number}")
    last = history.observed.commands[-1]
    never = replace(last, offset=3, headers=(("ce_id", str(UUID(int=4)).encode()), *last.headers[1:]))
    history.published.append(replace(history.published[-1], command_id=str(UUID(int=4)), sequence=4, offset=3))
    assert _lose(history, lost, 1, never) == [str(UUID(int=number)) for number in (2, 3, 4)]
    _send_again(history, 2, 3, 4)
    assert not judge(history.observed, history.published).ok
    findings = judge(*lost.tell(history.observed, history.published))
    assert findings.ok, findings.text()
    assert (findings.counts["commands"], findings.counts["duplicates"]) == (6, 2)
    assert _lose(history, lost, 2) == [str(UUID(int=number)) for number in (3, 4)]
    _send_again(history, 3, 4)
    findings = judge(*lost.tell(history.observed, history.published))
    assert findings.ok, findings.text()
    assert (findings.counts["commands"], findings.counts["duplicates"]) == (7, 3)
