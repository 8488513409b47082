"""Commands from Kafka into the applier: a subscriber that continues where the log does, and says where it didn't."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from org_service.apply.authenticator import Authenticator
from org_service.domain.requests import Record
from org_service.errors import RetryError
from org_service.kafka.client import IllegalStateError, KafkaError, TopicPartition
from org_service.settings import Settings
from org_service.telemetry.logs import get_logger
from org_service.waiting import Heartbeat, Patience, Trouble
from org_service.worker.continuity import Continuity
from org_service.worker.feed import Batches, ConsumerGroup, Feed
from org_service.worker.subscriber import Applies, Subscriber
from org_service.worker.succession import Succession

log = get_logger(__name__)

LOOK_S: Final = 3.0
"""Between looks at the topic's id and the partitions' leaders: one small request, and the longest that records of a
log that lost its end, or of another topic, are read at offsets of the former one."""
_METADATA_MAX_AGE_MS: Final = 10_000
"""A topic that was deleted and created again is joined after this at the latest."""


class AppliesCommands(Applies, Protocol):
    """What batches of commands are for."""

    authenticator: Authenticator
    """Says which partitions wait."""


class CommandSubscriber(Subscriber):
    """Subscribes to `orgs.commands`."""

    def __init__(
        self,
        settings: Settings,
        applier: AppliesCommands,
        heartbeat: Heartbeat | None = None,
        *,
        continuity: Continuity | None = None,
        make_group: Callable[..., ConsumerGroup] = ConsumerGroup,
    ) -> None:
        """Declare the subscription; nothing is connected yet."""
        worker, topic = settings.worker, settings.kafka.topics.commands
        feed = Feed(
            [topic],
            worker.group_id,
            worker.batch_timeout_ms,
            worker.fetch_wait_ms,
            _METADATA_MAX_AGE_MS,
            offset_reset="none",  # it would go back 14 days, or on at a number, without a word
        )
        super().__init__(settings, applier, feed, heartbeat, make_group=make_group)
        group = settings.worker_group
        self._continuity = continuity or Continuity(settings, group, topic)
        self._succession = Succession(settings.kafka, group)
        self._topic = topic
        self._authenticator = applier.authenticator
        self._left: dict[int, asyncio.Task[None] | None] = {}
        """Partitions left alone until keys were read, and the last batch that may hold records of theirs."""
        self._settling = Patience(
            "the position to continue from is not known yet",
            worker.retry_waits_s,
            log=log,
            judge=_judge,
            heartbeat=self.heartbeat,
        )
        self._settles = aiter(self._settling)
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Join the group, begin to take batches, and to look whether the log is still the same; raises as before."""
        await super().start()
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """As before."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await super().stop()

    async def check_log(self) -> str:
        """Whether the log of commands is there and continues where it was read.

        Raises:
            RetryError: It does not exist, nobody knows where to continue, or keys are on two partitions.
        """
        if self._continuity.absent:
            raise RetryError(f"topic {self._topic} does not exist: run `orgs topics apply`")
        if self._continuity.wrong is not None:
            raise RetryError(self._continuity.wrong)
        if self._settling.outage is not None:
            raise RetryError(f"the position to continue from is not known: {self._settling.outage}")
        return self._continuity.detail

    def _assigned(self) -> None:
        self._continuity.mark_lost()

    def _is_astray(self) -> bool:
        return self._continuity.lost

    def _commit_of(self, record: Record) -> int | tuple[int, str]:
        return self._continuity.commit_of(record)

    async def _prepare(self) -> bool:
        if self._draining:
            return True
        if not self._continuity.lost:
            self._leave_waiting()
            await self._follow_parents()
            return True
        if self.failed.done():
            return False
        if self._last is not None:  # what it commits must be behind us, or it would take the way back away
            await asyncio.wait((self._last,))
        try:
            async with asyncio.timeout(self._commit_timeout_s):
                settled = await self._continuity.settle(self._consumer)
        except (KafkaError, OSError, RetryError, TimeoutError) as error:
            await self._settles.wait(error)
            return False
        self._settles.succeed()
        if settled:
            self._forget_waiting()
            self._succession.begin(self._continuity.partitioning)
        return settled

    async def _admit(self, records: Batches) -> Batches:
        if self._draining or self._is_astray():
            return {}
        try:
            async with asyncio.timeout(self._commit_timeout_s):
                return await self._succession.admit(self._consumer, records)
        except (KafkaError, OSError, TimeoutError) as error:
            log.info("records of new partitions are read again", why=type(error).__name__)
            self._continuity.mark_lost()
            return {}
        except BaseException:  # a defect, say; the loop starts again behind what was polled
            self._continuity.mark_lost()
            raise

    async def _follow_parents(self) -> None:
        """Continue with new partitions whose parents are far enough."""
        if not self._succession.waiting:
            return
        try:
            async with asyncio.timeout(self._commit_timeout_s):
                go = await self._succession.look()
            self._consumer.resume(*(at for at in go if at.partition not in self._left))
        except IllegalStateError:  # it moved on
            return
        except (KafkaError, OSError, TimeoutError) as error:
            log.info("how far partitions are decided is not known", why=type(error).__name__)

    def _leave_waiting(self) -> None:
        """Leave alone the partitions that wait for keys, at the record that waits, and continue with them when it
        may."""
        waiting, left = self._authenticator.waiting, self._left
        if not waiting:
            return
        for partition in list(waiting):
            at = TopicPartition(self._topic, partition)
            try:
                if partition not in left:
                    self._consumer.pause(at)
                    self._consumer.seek(at, waiting[partition].offset)
                    left[partition] = self._last
                elif self._authenticator.may_go_on(partition):
                    last = left[partition]
                    if last is None or last.done():
                        self._authenticator.go_on(partition)
                        del left[partition]
                        self._consumer.resume(at)
            except IllegalStateError:  # it moved on; `_forget_waiting` comes next
                return

    def _forget_waiting(self) -> None:
        """Every partition was put where it was acknowledged, before whatever waits."""
        self._authenticator.forget()
        self._left.clear()
        self._consumer.resume(*self._consumer.paused())

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._continuity.look_for_changes(self._consumer)
            except (KafkaError, OSError, TimeoutError) as error:  # `absent` tells, or whoever polls says it louder
                log.debug("the log could not be checked", why=type(error).__name__)
            except Exception:  # a defect must not end the looking
                log.exception("the log could not be checked: a defect")


def _judge(error: Exception) -> Trouble:
    return Trouble(str(error) if isinstance(error, RetryError) else type(error).__name__)
