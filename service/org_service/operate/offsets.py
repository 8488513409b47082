"""`orgs offsets reset`: where a consumer group continues, set while nobody is in it.

The offsets are worked out once and kept with the plan. A run commits them if the group still is where the plan saw it,
and reads them back. It may come twice: what is committed already is left as it is, and a group that has moved since
stops it. The coordinator itself rejects a commit while somebody is in the group.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, Literal, NamedTuple, cast

from pydantic import BaseModel, ConfigDict

from org_events.kafka.consumer import SteadyConsumer
from org_events.kafka.topic_ids import describe_present
from org_service import probes
from org_service.errors import BadInputError, PreconditionError, TopicsMissingError
from org_service.kafka.client import TopicPartition
from org_service.kafka.offsets import commit, describe_groups, read_committed, read_groups
from org_service.kafka.reader import ends, groupless_consumer
from org_service.kafka.unread import FETCH_OPTIONS, find_times
from org_service.operate import marks
from org_service.operate.operation import Execution, Plan, Tally
from org_service.operate.positions import CLOCKS_MS, find_turn
from org_service.probes import probe
from org_service.settings import Settings

NONE: Final = -1
"""For an offset: nothing is committed."""

Kind = Literal["position", "mark", "time", "earliest", "latest", "file"]
Offsets = Mapping[tuple[str, int], int]


class Target(NamedTuple):
    """Where a group shall continue."""

    kind: Kind
    value: Any = None
    """The position, the name of the mark, the time, or the offsets by topic and partition."""


class Move(NamedTuple):
    """One partition: from where the group continues, to where it shall."""

    topic: str
    partition: int
    before: int
    after: int


class Parameters(BaseModel):
    """What makes a reset again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str
    topic_ids: dict[str, str]
    moves: tuple[Move, ...]
    may_skip_commands: bool


class ResetOffsets:
    """A consumer group continues elsewhere."""

    kind: ClassVar[str] = "reset offsets"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Parameters.model_validate(parameters)

    @classmethod
    async def make(
        cls, settings: Settings, group: str, target: Target, topics: Sequence[str], *, may_skip_commands: bool
    ) -> "ResetOffsets":
        """Make one, with the offsets worked out.

        Args:
            settings: Of the servers.
            group: Its name, as `orgs offsets` lists it.
            target: Where to.
            topics: The ones that are meant; all of ours on which the group has committed, if none is named.
            may_skip_commands: The worker's group may be put behind commands that nobody has decided.

        Raises:
            PreconditionError: There is nothing to set, or the target doesn't fit.
            BadInputError: A topic or partition is not one of ours.
            KafkaError, TopicsMissingError: Kafka, or a topic, is away.
        """
        kafka = settings.kafka
        ours = sorted(spec.name for spec in kafka.topics.specs())
        async with groupless_consumer(kafka, **FETCH_OPTIONS) as consumer:
            there = await describe_present(consumer, ours)
            every = [TopicPartition(name, number) for name, each in there.items() for number in sorted(each.leaders)]
            meant = await _choose(settings, group, target, topics, every)
            found = await _Finder(settings, consumer, meant, every).find(target)
        before = await read_committed(kafka, group, meant, or_none=True)
        moves = [Move(at.topic, at.partition, before[at].offset, found[at]) for at in meant if at in found]
        ids = {name: str(there[name].topic_id) for name in sorted({each.topic for each in moves})}
        asked = Parameters(group=group, topic_ids=ids, moves=tuple(moves), may_skip_commands=may_skip_commands)
        return cls(settings, asked.model_dump(mode="json"))

    @property
    def resource(self) -> str:
        """The group."""
        return f"group {self._asked.group}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Group and offsets."""
        return self._asked.model_dump(mode="json")

    async def plan(self) -> Plan:
        """See what would move, and that nobody is in the group."""
        await self._see_inactive()
        now = await self._read()
        tally, again, skipped = Tally(), 0, 0
        for each in self._asked.moves:
            at = now[TopicPartition(each.topic, each.partition)]
            if at == each.after:
                continue
            again += max(0, at - each.after) if at != NONE else 0
            skipped += max(0, each.after - max(at, 0))
            row = {"topic": each.topic, "partition": each.partition, "from": at, "to": each.after}
            row["reads again" if each.after < at else "skips"] = abs(each.after - max(at, 0))
            identity = f"{each.topic} {each.partition} {at} {each.after}".encode()
            tally.add(identity, lambda row=row: row)
        self._see_commands_kept()
        notes = [f"{again:,} offsets are read again, {skipped:,} are skipped"]
        return tally.plan({"group": self._asked.group, **await self._see_topics()}, notes)

    async def run(self, execution: Execution) -> None:
        """Commit what is not committed yet, and read it back."""
        if execution.progress is not None:
            return
        await self._see_topics()
        now = await self._read()
        left: dict[TopicPartition, int] = {}
        for each in self._asked.moves:
            at = TopicPartition(each.topic, each.partition)
            if now[at] == each.after:
                continue
            if now[at] != each.before:
                raise PreconditionError(
                    f"the group {self._asked.group} has moved on in {each.topic}, partition {each.partition}: it was "
                    f"at {each.before} when this was planned, and is at {now[at]} now. Plan again."
                )
            left[at] = each.after
        moved = sum(each.before != each.after for each in self._asked.moves)
        if left:
            await self._see_inactive()
            if probes.listeners:
                await probe("operate.before_commit")
            await commit(self._settings.kafka, self._asked.group, left)
            if probes.listeners:
                await probe("operate.after_commit")
        now = await self._read()
        wrong = [each for each in self._asked.moves if now[TopicPartition(each.topic, each.partition)] != each.after]
        if wrong:
            raise PreconditionError(
                f"read back, {len(wrong)} of {len(self._asked.moves)} partitions are not where they were set, "
                f"{wrong[0].topic} {wrong[0].partition} the first of them: somebody else commits for this group."
            )
        await execution.record("committed", {"set": moved})

    async def _read(self) -> dict[TopicPartition, int]:
        meant = [TopicPartition(each.topic, each.partition) for each in self._asked.moves]
        found = await read_committed(self._settings.kafka, self._asked.group, meant, or_none=True)
        return {at: found[at].offset for at in meant}

    async def _see_inactive(self) -> None:
        group = (await describe_groups(self._settings.kafka, [self._asked.group])).get(self._asked.group)
        if group is not None and group.active:
            raise PreconditionError(
                f"{group.members} consumers are in the group {self._asked.group} ({group.state}): stop them first. "
                "What they commit would undo this."
            )

    async def _see_topics(self) -> Mapping[str, str]:
        async with groupless_consumer(self._settings.kafka) as consumer:
            there = await describe_present(consumer, list(self._asked.topic_ids))
        ids = {name: str(each.topic_id) for name, each in sorted(there.items())}
        if ids != self._asked.topic_ids:
            raise PreconditionError("a topic was deleted or created again since this was planned. Plan again.")
        return ids

    def _see_commands_kept(self) -> None:
        """Guarantee 2: no command is dropped in silence."""
        if self._asked.group != self._settings.worker_group or self._asked.may_skip_commands:
            return
        commands = self._settings.kafka.topics.commands
        skips = [each for each in self._asked.moves if each.topic == commands and each.after > max(each.before, 0)]
        if skips:
            raise PreconditionError(
                f"this is the workers' group, and {sum(each.after - max(each.before, 0) for each in skips):,} offsets "
                f"of {commands} would never be decided: whoever sent these commands gets no outcome. If that is what "
                "you want, say --may-skip-commands."
            )


async def _choose(
    settings: Settings, group: str, target: Target, topics: Sequence[str], every: Sequence[TopicPartition]
) -> list[TopicPartition]:
    """The partitions that are meant."""
    names = {each.topic for each in every}
    kind, value = target
    by_file: Offsets = value if kind == "file" else {}
    unknown = sorted({*topics, *(topic for topic, _ in by_file)} - names)
    if unknown:
        raise BadInputError(f"{unknown[0]} is none of our topics, or it is not there: {', '.join(sorted(names))}.")
    if by_file:
        wanted = {TopicPartition(*each) for each in by_file}
        absent = sorted(wanted - set(every))
        if absent:
            raise BadInputError(f"{absent[0].topic} has no partition {absent[0].partition}.")
        return sorted(wanted)
    chosen = set(topics)
    if not chosen:
        chosen = {at.topic for at in (await read_groups(settings.kafka, every)).get(group, {})}
        if not chosen:
            raise PreconditionError(
                f"the group {group} has committed nothing on our topics (`orgs offsets` lists those that have): name "
                "topics with --topic to set it up."
            )
    return [each for each in every if each.topic in chosen]


class _Finder:
    """Works offsets out."""

    def __init__(
        self,
        settings: Settings,
        consumer: SteadyConsumer,
        meant: Sequence[TopicPartition],
        every: Sequence[TopicPartition],
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._meant = meant
        self._every = every

    async def find(self, target: Target) -> Mapping[TopicPartition, int]:
        """Of each partition that is meant the offset to continue at."""
        now = await ends(self._consumer, self._every)
        begins = cast("dict[TopicPartition, int]", await self._consumer.beginning_offsets(self._every))
        match target:
            case ("earliest", _):
                found: Mapping[TopicPartition, int] = begins
            case ("latest", _):
                found = now
            case ("time", moment):
                time_ms = int(cast("datetime", moment).timestamp() * 1000)
                found = await find_times(self._consumer, self._meant, time_ms, now)
            case ("mark", name):
                found = await self._at_mark(name)
            case ("position", position):
                found = await self._behind_position(position, begins, now)
            case (_, by_file):
                found = {TopicPartition(*at): offset for at, offset in cast("Offsets", by_file).items()}
                for at, offset in found.items():
                    if not begins[at] <= offset <= now[at]:
                        raise BadInputError(
                            f"{at.topic}, partition {at.partition} goes from {begins[at]} to {now[at]}: there is no "
                            f"offset {offset}."
                        )
        return {at: min(max(found[at], begins[at]), now[at]) for at in self._meant}

    async def _at_mark(self, name: str) -> Mapping[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        for topic in sorted({at.topic for at in self._meant}):
            ends_then = await marks.find_ends(self._settings, name, topic)
            found |= {TopicPartition(topic, partition): offset for partition, offset in ends_then.items()}
        return found

    async def _behind_position(
        self, position: int, begins: Mapping[TopicPartition, int], now: Mapping[TopicPartition, int]
    ) -> Mapping[TopicPartition, int]:
        """Everything behind a position, and on topics without an order of their own perhaps some before it."""
        topics, found = self._settings.kafka.topics, dict[TopicPartition, int]()
        timed = (topics.results, topics.state)
        for at in self._meant:
            if at.topic not in (*timed, topics.events):
                raise PreconditionError(
                    f"{at.topic} knows no positions of the journal: use --to-mark or --to-datetime, or name other "
                    "topics with --topic."
                )
            events = TopicPartition(topics.events, at.partition)
            if events not in now:
                raise TopicsMissingError(f"{topics.events} has no partition {at.partition}.")
            turn = await find_turn(self._consumer, events, position, begins[events], now[events])
            if at.topic == topics.events:
                found[at] = turn.offset
            elif turn.before is None:
                found[at] = begins[at]
            else:
                times = await find_times(self._consumer, [at], turn.before.timestamp - CLOCKS_MS, now)
                found[at] = times[at]
        return found
