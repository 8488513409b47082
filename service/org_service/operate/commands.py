"""Which records of `orgs.commands` an operator means, and where they are."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from org_service.domain.requests import Record
from org_service.errors import PreconditionError
from org_service.kafka.ranges import Extent, OffsetRange, find_extent
from org_service.operate import marks
from org_service.settings import Settings
from org_service.store import journal, recorded
from org_service.store.database import Database

WINDOW_POSITIONS: Final = 200_000
"""Of the journal in one statement."""
_SHOWN_MAX: Final = 5


class CommandSelection(BaseModel):
    """Records: all conditions hold, and what is empty is not asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_offsets: dict[int, int] = {}
    """By partition, the first offset; where offsets are named, other partitions are not meant."""
    to_offsets: dict[int, int] = {}
    """By partition, the last offset."""
    from_time: AwareDatetime | None = None
    to_time: AwareDatetime | None = None
    """By the broker's clock; before this."""
    org_ids: tuple[UUID, ...] = ()
    command_ids: tuple[UUID, ...] = ()

    @property
    def keys(self) -> frozenset[bytes]:
        """Of the records of the organizations."""
        return frozenset(str(each).encode() for each in self.org_ids)

    def matcher(self) -> Callable[[Record, UUID | None], bool]:
        """Tells of a record of the ranges, and the command id that was read of it, whether it is meant."""
        keys, commands = self.keys, frozenset(self.command_ids)
        from_ms, to_ms = _ms(self.from_time), _ms(self.to_time)

        def means(record: Record, command_id: UUID | None) -> bool:
            if keys and (record.key or b"").lower() not in keys:
                return False
            if commands and command_id not in commands:
                return False
            # A range begins at the first record of its time; where the broker's clock went back there are others in it.
            return (from_ms is None or record.timestamp >= from_ms) and (to_ms is None or record.timestamp < to_ms)

        return means

    async def between_marks(self, settings: Settings, from_mark: str | None, to_mark: str | None) -> "CommandSelection":
        """The same, from where the topic ended at one mark, and up to where it ended at another.

        Raises:
            PreconditionError: There is no such mark, or the topic is another one by now.
            KafkaError, TopicsMissingError: Kafka, or the topic, is away.
        """
        topic, named = settings.kafka.topics.commands, {*self.from_offsets, *self.to_offsets}
        bounds: dict[str, dict[int, int]] = {}
        for field, mark, last in (("from_offsets", from_mark, 0), ("to_offsets", to_mark, 1)):
            if mark is not None:
                at = await marks.find_ends(settings, mark, topic)
                bounds[field] = {each: end - last for each, end in at.items() if not named or each in named}
        return self.model_copy(update=bounds)

    async def find(self, settings: Settings, database: Database) -> Extent:
        """See where they are now.

        Raises:
            PreconditionError: There are none; or nothing is known of a command that is named.
            KafkaError: Kafka can't be reached.
            TopicsMissingError: The topic does not exist.
        """
        from_offsets, to_offsets = self.from_offsets, self.to_offsets
        if self.command_ids:
            from_offsets, to_offsets = await self._narrowed(database)
        topic = settings.kafka.topics.commands
        extent = await find_extent(
            settings.kafka,
            topic,
            from_offsets=from_offsets,
            end_offsets={partition: offset + 1 for partition, offset in to_offsets.items()},
            from_ms=_ms(self.from_time),
            to_ms=_ms(self.to_time),
            keys=self.keys,
        )
        unknown = sorted({*self.from_offsets, *self.to_offsets} - set(range(extent.partitions)))
        if unknown:
            raise PreconditionError(
                f"{topic} has no partition {unknown[0]}: its {extent.partitions} are numbered from 0."
            )
        return extent

    async def _narrowed(self, database: Database) -> tuple[dict[int, int], dict[int, int]]:
        """The first and the last offset of the commands that are named, by partition: no more need be read."""
        async with database.connect() as conn:
            decided = await recorded.find_commands(conn, self.command_ids)
            parked = await recorded.find_parked_commands(conn, self.command_ids)
        at = [(each.row.command_partition, each.row.command_offset) for each in decided.values()]
        at += [(each.partition, each.offset) for each in parked.values()]
        missing = [str(each) for each in self.command_ids if each not in decided and each not in parked]
        if missing:
            more = f" and {len(missing) - _SHOWN_MAX} more" if len(missing) > _SHOWN_MAX else ""
            raise PreconditionError(
                f"nothing is known of the command {', '.join(missing[:_SHOWN_MAX])}{more}: neither the journal nor "
                "what is parked has it."
            )
        firsts, lasts = dict(self.from_offsets), dict(self.to_offsets)
        for partition in {each for each, _ in at}:
            offsets = [offset for each, offset in at if each == partition]
            firsts[partition] = max(min(offsets), firsts.get(partition, 0))
            lasts[partition] = min(max(offsets), lasts.get(partition, max(offsets)))
        return firsts, lasts

    async def count_taken(self, database: Database, extent: Extent) -> int:
        """How many decided commands that are meant the topic holds no more: retention has taken them.

        Only of what was asked for: of a selection without a beginning the topic's own is meant. Reads all of the
        journal.
        """
        if not (self.from_offsets or self.from_time or self.command_ids):
            return 0
        gone = {
            partition: (self.from_offsets.get(partition, 0), start)
            for partition, start in extent.log_starts.items()
            if self.from_offsets.get(partition, 0) < start
        }
        if not gone:
            return 0
        wanted: Mapping[str, Any] = {
            "from_ms": _ms(self.from_time),
            "to_ms": _ms(self.to_time),
            "org_ids": list(self.org_ids) or None,
            "command_ids": list(self.command_ids) or None,
        }
        taken = 0
        async with database.connect() as conn:
            head = await journal.read_head(conn)
            for after in range(0, head, WINDOW_POSITIONS):
                through = min(after + WINDOW_POSITIONS, head)
                taken += await recorded.count_decided(conn, after, through, gone, **wanted)
        return taken


def offsets_in(ranges: Mapping[int, OffsetRange] | Mapping[int, Sequence[int]]) -> int:
    """How many offsets ranges span."""
    return sum(each[1] - each[0] for each in ranges.values())


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
