"""Commands of a run: sent again after whatever failure, they take effect once.

The id of each comes from the run and what it is about, so a step that comes twice gets the first outcomes again
(guarantee 1). All commands of a run are one trace, whose id is the run's: so `--run` finds what a run changed.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid5

from org_events.commands import Command
from org_events.publishing import OrganizationClient
from org_events.publishing.errors import ClientError, KafkaRefused, TopicMissing
from org_events.results import Outcome, Result
from org_service import probes
from org_service.errors import DeniedError, PreconditionError, RetryError, TopicsMissingError
from org_service.operate import publish
from org_service.operate.operation import Execution
from org_service.probes import probe
from org_service.settings import Settings
from org_service.telemetry.logs import get_logger

log = get_logger(__name__)

OUTCOME_TIMEOUT_S: Final = 60.0
"""For an outcome; then the step comes again."""
FAILURES_KEPT_MAX: Final = 20
"""Items that were not done, in the row of the run; the log has all of them."""
_UNAUTHENTICATED: Final = 401
_CONFLICT: Final = 409


class Item(NamedTuple):
    """One organization, and what is to be done to it."""

    name: str
    """For people: a line of a file, an organization."""
    word: str
    """Where all goes well: created, updated, undone."""
    key: str
    """Of the ids of its commands: the same for the same item of a run, and for no other one."""
    commands: Sequence[Command]
    """In order."""


class Done(NamedTuple):
    """What became of the items of a step."""

    counts: Mapping[str, int]
    failures: Sequence[Mapping[str, str]]


class Sender:
    """Sends the commands of one run."""

    def __init__(self, client: OrganizationClient, run_id: UUID) -> None:
        self._client = client
        self._run_id = run_id

    async def send(self, items: Sequence[Item]) -> Done:
        """Send the commands of some items and wait for their outcomes.

        Raises:
            RetryError: Not all outcomes came: send the same again.
            DeniedError, PreconditionError: Nobody will accept them.
        """
        if probes.listeners:
            await probe("operate.before_publish")
        commands = [
            (item, uuid5(self._run_id, f"{item.key} {number}"), command)
            for item in items
            for number, command in enumerate(item.commands)
        ]
        outcomes: dict[str, list[Result]] = {item.key: [] for item in items}
        try:
            async with aclosing(self._client.execute_many(each[1:] for each in commands)) as sent:
                place = 0
                async for result in sent:
                    outcomes[commands[place][0].key].append(result)
                    place += 1
        except (KafkaRefused, TopicMissing) as error:
            raise DeniedError(str(error)) from error
        except ClientError as error:
            raise RetryError(str(error)) from error
        if probes.listeners:
            await probe("operate.after_publish")
        counts: Counter[str] = Counter()
        failures: list[Mapping[str, str]] = []
        for item in items:
            word, why = _judge(item, outcomes[item.key])
            counts[word] += 1
            if why is not None:
                failures.append({"item": item.name, "why": why})
                log.warning("not done", item=item.name, why=why)
        return Done(counts, failures)


def _judge(item: Item, results: Sequence[Result]) -> tuple[str, str | None]:
    """The word that an item is counted under, and why it was not done."""
    for result in results:
        if result.outcome in (Outcome.APPLIED, Outcome.UNCHANGED):
            continue
        problem = result.problem
        why = f"{result.code}" if problem is None else f"{result.code} {problem.title}: {problem.detail}"
        if result.code == _UNAUTHENTICATED:
            raise PreconditionError(
                "the service accepts no commands without a valid token: set ORGS_TOKEN to one of yours, and plan "
                f"again. {why}"
            )
        if result.outcome == Outcome.PARKED:
            return "parked", why
        return "conflict" if result.code == _CONFLICT else "rejected", why
    return item.word, None


@asynccontextmanager
async def open_sender(settings: Settings, execution: Execution) -> AsyncGenerator[Sender]:
    """A sender on behalf of whoever asked for the run: the user of `ORGS_TOKEN`, where there is a token.

    Raises:
        RetryError, KafkaError: Kafka can't be reached now.
        DeniedError, TopicsMissingError: Kafka won't have it.
    """
    token = settings.token.get_secret_value()
    who: dict[str, Any] = {"token": token} if token else {"actor": execution.requested_by}
    trace = traceparent(execution.run_id)
    try:
        async with publish.connect(settings.kafka, timeout_s=OUTCOME_TIMEOUT_S, traceparent=trace, **who) as client:
            yield Sender(client, execution.run_id)
    except TopicMissing as error:
        raise TopicsMissingError(str(error)) from error
    except KafkaRefused as error:
        raise DeniedError(str(error)) from error
    except ClientError as error:
        raise RetryError(str(error)) from error


def trace_id(run_id: UUID) -> str:
    """Of the trace that all commands of a run are."""
    return run_id.hex


def traceparent(run_id: UUID) -> str:
    """Of what a run changes."""
    return f"00-{trace_id(run_id)}-{run_id.hex[16:]}-01"


def with_failures(progress: Mapping[str, Any], more: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """A run's progress with the first of the items that were not done."""
    failed = [*progress.get("failed", ()), *more][:FAILURES_KEPT_MAX]
    return {**progress, "failed": failed} if failed else dict(progress)
