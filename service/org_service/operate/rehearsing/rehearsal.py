"""Commands are decided again, by the code that decides them, and compared with what was recorded.

    topic, partitions side by side -> what was recorded (`recall`) -> in the order of the journal (`order`) -> batches
      with what stood before (`batches`) -> the worker's own `Applier`, on tables of its session alone
      (`store.scratch`) -> compared (`domain.fates`)

What a rehearsal stands on:

- organizations are what the journal says they were, each at its own first command of a batch. Where the rehearsal went
  another way than the journal, the organization stays what the rehearsal made of it: consequences are shown, and marked
  as such;
- names that others held then are known (`names`);
- reference data and the issuer's keys are those of now. A token whose key is no longer listed counts for whoever it was
  accepted for;
- the policy is the one in force, or the one that is tried.

Nothing but the session's own temporary tables is written. While a batch is decided, the next ones are read.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from org_events.results import ProblemType
from org_service.apply.applier import Applier
from org_service.apply.authenticator import Authenticator
from org_service.apply.canary import Reader
from org_service.auth.policy import load_policy
from org_service.domain.access import TRUSTED, Access
from org_service.domain.decide import Decision, Holders, decide
from org_service.domain.fates import ACCESS_PROBLEMS, Fate, compare, leaves_another_state, problem_type
from org_service.domain.fold import Decider, Plan
from org_service.domain.organization import StoredOrganization
from org_service.domain.policy import Policy
from org_service.domain.reasons import SkipReason
from org_service.domain.requests import Record, Request, Unreadable
from org_service.errors import PreconditionError, RetryError
from org_service.kafka.ranges import Extent, open_ranges
from org_service.operate.commands import CommandSelection, offsets_in
from org_service.operate.rehearsing.batches import NOW, Batch, BatchBuilder, without_name
from org_service.operate.rehearsing.names import NameHolders
from org_service.operate.rehearsing.order import Item, Order
from org_service.operate.rehearsing.recall import Recall
from org_service.operate.rehearsing.report import Because, Difference, Report
from org_service.settings import Settings
from org_service.store import scratch
from org_service.store.database import Database
from org_service.store.scratch import Given, Scratch, Waiting
from org_service.wire.commands import read

PATIENCE_S: Final = 10.0
"""An outage is waited out for so long; who looks on can start again."""
_BATCHES_AHEAD: Final = 2
"""Read while one is decided."""
_TAKE: Final = 1_000

_At = tuple[int, int]
OnDifference = Callable[[Difference], None]


class Rehearsal:
    """One rehearsal; `run` it once. `report` may be looked at meanwhile, and after it was cancelled."""

    def __init__(
        self,
        settings: Settings,
        selection: CommandSelection,
        *,
        policy: Policy | None = None,
        decider: Decider | None = None,
        reader: Reader | None = None,
    ) -> None:
        """Make one.

        Args:
            settings: Of the real servers.
            selection: Which commands.
            policy: What each role is denied; None for the policy in force.
            decider: Decides each command, in place of `domain.decide`.
            reader: Reads each record, in place of `wire.commands`.
        """
        self.report = Report()
        self._settings = settings
        self._selection = selection
        self._policy_in_force = load_policy(settings.auth)
        self._policy = policy
        self._decider: Decider = decider or decide
        self._reader = reader or read
        self._database = Database(settings.database, "operate", autocommit=True)
        self._tables = Scratch(settings.database)
        self._holders = NameHolders(self._database, self._tables)
        self._items: dict[_At, Item] = {}
        """Of the batch that is being decided."""
        self._fates: dict[_At, Fate] = {}
        self._parked: list[Waiting] = []
        self._moments: dict[int, datetime] = {}
        """When commands of the batch were decided, by the identity of each."""
        self._as_in_force: dict[int, Decision] = {}
        """What the policy in force would say, likewise."""
        self._diverged = 0
        """Organizations that went another way, in all."""
        self._start = NOW

    async def run(self, on_difference: OnDifference, on_progress: Callable[[Report], None] | None = None) -> Report:
        """Rehearse.

        Args:
            on_difference: Told of each one, in the order of the journal.
            on_progress: Told after each batch.

        Raises:
            PreconditionError: There is nothing to rehearse.
            DeniedError: Postgres does not allow it.
            RetryError: A server is away. Nothing has to be undone.
            KafkaError: Kafka can't be reached.
            TopicsMissingError: The topic does not exist.
            PartitionUnreadableError: A partition can't be read.
        """
        began_s = time.monotonic()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._database.close)
            extent = await self._find_extent()
            authenticator = Authenticator(self._settings.auth, policy=self._policy, voucher=self._vouch)
            stack.push_async_callback(authenticator.close)
            await authenticator.start()
            stack.push_async_callback(self._tables.close)
            await self._tables.open()
            applier = self._make_applier(authenticator)
            async with aclosing(self._batches(extent)) as batches:
                async for batch in batches:
                    await self._rehearse(applier, batch, on_difference)
                    self.report.read, self.report.seconds = batch.read_to, time.monotonic() - began_s
                    if on_progress is not None:
                        on_progress(self.report)
        self.report.seconds = time.monotonic() - began_s
        if not self.report.records and not self.report.left_out:
            raise self._none()
        return self.report

    async def _find_extent(self) -> Extent:
        extent = await self._selection.find(self._settings, self._database)
        self.report.offsets = offsets_in(extent.ranges)
        self.report.taken = await self._selection.count_taken(self._database, extent)
        if not extent.ranges:
            raise self._none()
        return extent

    def _none(self) -> PreconditionError:
        gone = f": retention has taken {self.report.taken:,}" if self.report.taken else ""
        return PreconditionError(f"{self._settings.kafka.topics.commands} holds none of these commands{gone}.")

    def _make_applier(self, authenticator: Authenticator) -> Applier:
        # In one lane: what was decided in an order is decided in that order, across partitions too.
        settings = self._settings.worker.model_copy(update={"lanes": 1})
        return Applier(
            self._tables,
            authenticator,
            None,
            settings,
            decider=self._decide,
            reader=self._read_again,
            on_commit=self._note,
        )

    async def _batches(self, extent: Extent) -> AsyncGenerator[Batch]:
        """Batches, read ahead of whoever decides them."""
        ahead: asyncio.Queue[Batch | None] = asyncio.Queue(_BATCHES_AHEAD)
        reading = asyncio.create_task(self._read_ahead(extent, ahead))
        try:
            while (batch := await ahead.get()) is not None:
                yield batch
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read_ahead(self, extent: Extent, ahead: "asyncio.Queue[Batch | None]") -> None:
        recall = Recall(self._database, self._selection, self._reader)
        recall.left_out = self.report.left_out
        topic = self._settings.kafka.topics.commands
        apart = bool(self._selection.command_ids)
        firsts = sum(each.first for each in extent.ranges.values())
        try:
            async with open_ranges(self._settings.kafka, topic, extent.ranges) as reader:
                order, builder = Order(reader.unfinished), BatchBuilder(apart=apart)
                while reader.unfinished or not order.is_empty:
                    taken = order.take(_TAKE)
                    if not taken and reader.unfinished:
                        found = await recall.find(await reader.read(order.full))
                        for partition, items in found.items():
                            order.add(partition, items)
                        continue
                    read_to = sum(reader.read_to.values()) - firsts
                    for item in taken:
                        if not builder.add(item):
                            await ahead.put(await builder.build(self._database, self._selection, extent, read_to))
                            builder = BatchBuilder(apart=apart)
                            builder.add(item)
                if builder.items:
                    read_to = sum(reader.read_to.values()) - firsts
                    await ahead.put(await builder.build(self._database, self._selection, extent, read_to))
        finally:
            await ahead.put(None)

    async def _rehearse(self, applier: Applier, batch: Batch, on_difference: OnDifference) -> None:
        start = next((item.own.position for item in batch.items if item.own is not None), NOW)
        self._start = min(self._start, start)
        there, diverged = await self._before(batch)
        self._items = {(item.record.partition, item.record.offset): item for item in batch.items}
        self._moments = {
            id(item.request.command): item.own.row.recorded_at
            for item in batch.items
            if item.own is not None and isinstance(item.request, Request)
        }
        self._fates, self._parked, self._as_in_force = {}, [], {}
        waiting = list(batch.waiting)
        if self._diverged:
            async with self._tables.note() as conn:
                waiting += await scratch.find_waiting(conn, batch.organizations)
        self._tables.given = Given(there, batch.journaled, waiting)
        await self._apply(applier, [item.record for item in batch.items])
        for item in batch.items:
            self._compare(item, diverged, on_difference)
        self.report.records += len(batch.items)
        await self._keep(diverged)

    async def _before(self, batch: Batch) -> tuple[dict[UUID, StoredOrganization], set[UUID]]:
        """What stood before a batch; and which of its organizations are others in the rehearsal than in the journal."""
        others = dict(batch.bystanders)
        if batch.contested:
            others |= await self._holders.find(batch.contested, self._start - 1)
        there = {org_id: each for org_id, each in others.items() if org_id not in batch.organizations}
        there |= {org_id: each for org_id, each in batch.organizations.items() if each is not None}
        diverged: set[UUID] = set()
        if self._diverged:
            async with self._tables.note() as conn:
                found = await scratch.find_diverged(conn, there.keys() | batch.organizations.keys(), batch.names)
            diverged = set(found)
            for org_id, state in found.items():
                if state is None:
                    there.pop(org_id, None)
                else:
                    there[org_id] = state
        return _with_distinct_names(there, diverged), diverged

    async def _apply(self, applier: Applier, records: list[Record]) -> None:
        """Decide a batch; an outage is waited out for a while."""
        task = asyncio.create_task(applier.apply(records))
        since_s: float | None = None
        try:
            while not (await asyncio.wait({task}, timeout=0.5))[0]:
                outage, now_s = applier.outage, time.monotonic()
                since_s = None if outage is None else since_s or now_s
                if since_s is not None and now_s - since_s > PATIENCE_S:
                    raise RetryError(f"the rehearsal can't go on: {outage}. Nothing was changed: start it again.")
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep(self, diverged: set[UUID]) -> None:
        """Keep what went another way, for the batches behind this one."""
        if not diverged and not self._parked:
            return
        async with self._tables.note() as conn:
            if diverged:
                there = self._tables.given.organizations
                await scratch.note_diverged(conn, [(org_id, there.get(org_id)) for org_id in diverged])
            if self._parked:
                await scratch.note_waiting(conn, self._parked)
        self._diverged += len(diverged) + len(self._parked)

    def _note(self, plan: Plan) -> None:
        """Hear of a commit."""
        given, fates = self._tables.given, self._fates
        for row in plan.journal:
            fates[row.command_partition, row.command_offset] = Fate("decided", row)
            self.report.outcomes[f"{row.outcome} {row.code}"] += 1
        for reply in plan.replies:
            at = reply.request.record.partition, reply.request.record.offset
            fates[at] = Fate("parked" if reply.kind == SkipReason.PARKED else _WORDS[reply.kind])
        for unreadable, request in plan.parked:
            at = unreadable.record.partition, unreadable.record.offset
            fates[at] = Fate("parked", reason=unreadable.reason)
            self.report.outcomes["parked"] += 1
            if request is not None and request.org_id is not None:
                self._parked.append(Waiting(request.command_id, request.org_id, request.digest, *at))
        # Where a batch is halved, the second half begins with what the first one made of it.
        given.organizations.update(plan.created)
        given.organizations.update(plan.updated)
        given.waiting = list({each.command_id: each for each in (*given.waiting, *self._parked)}.values())

    def _compare(self, item: Item, diverged: set[UUID], on_difference: OnDifference) -> None:
        at = item.record.partition, item.record.offset
        rehearsed = self._fates.get(at) or Fate("redelivered")
        unlike = compare(item.fate, rehearsed)
        if not unlike:
            return
        request = item.request if isinstance(item.request, Request) else None
        row = rehearsed.row or item.fate.row
        org_id = request.org_id if row is None and request is not None else None if row is None else row.org_id
        difference = Difference(
            None if item.own is None else item.own.position,
            *at,
            request.command_id if row is None and request is not None else None if row is None else row.command_id,
            org_id,
            None if row is None else row.command_type,
            None if row is None else row.actor,
            item.fate.word,
            rehearsed.word,
            unlike,
            self._why(item, rehearsed, org_id, diverged),
        )
        if org_id is not None and leaves_another_state(item.fate, rehearsed, unlike):
            diverged.add(org_id)
        self.report.count(difference)
        on_difference(difference)

    def _why(self, item: Item, rehearsed: Fate, org_id: UUID | None, diverged: set[UUID]) -> Because:
        if org_id is not None and org_id in diverged:
            return "follows"
        problems = {problem_type(row) for row in (item.fate.row, rehearsed.row) if row is not None}
        if ProblemType.NAME_TAKEN in problems and (self._diverged or diverged):
            return "follows"
        request = item.request if isinstance(item.request, Request) else None
        recorded = item.fate.row
        in_force = None if request is None else self._as_in_force.get(id(request.command))
        if in_force is not None and recorded is not None and in_force[:2] == (recorded.outcome, recorded.code):
            return "policy"
        by_token = request is not None and request.authorization is not None
        return "access" if by_token and not problems.isdisjoint(ACCESS_PROBLEMS) else "rules"

    def _decide(
        self,
        command: Any,
        organization: StoredOrganization | None,
        holders: Holders,
        now: datetime,
        access: Access | None = TRUSTED,
        *,
        is_partner: bool = False,
    ) -> Decision:
        """Decide as of then; and where the policy that is tried denies something else, also by the one in force."""
        moment = self._moments.get(id(command), now)
        decision = self._decider(command, organization, holders, moment, access, is_partner=is_partner)
        if access is None or access.role is None:
            return decision
        self.report.by_token += 1
        if self._policy is not None:
            denied = self._policy_in_force.denied[access.role]
            if denied != access.denied_actions:
                access = access._replace(denied_actions=denied)
                in_force = self._decider(command, organization, holders, moment, access, is_partner=is_partner)
                self._as_in_force[id(command)] = in_force
        return decision

    def _read_again(self, record: Record) -> Request | Unreadable:
        """What was read of a record of the batch; where our code raised, it shall raise again."""
        request = self._items[record.partition, record.offset].request
        return self._reader(record) if request is None else request

    def _vouch(self, request: Request) -> str | None:
        vouched = self._items[request.record.partition, request.record.offset].vouched
        if vouched is not None:
            self.report.vouched += 1
        return vouched


_WORDS: Final[dict[str, Any]] = {
    SkipReason.DUPLICATE: "duplicate",
    SkipReason.COMMAND_ID_REUSED: "command_id_reused",
}


def _with_distinct_names(there: dict[UUID, StoredOrganization], diverged: set[UUID]) -> dict[UUID, StoredOrganization]:
    """The organizations, none of which has another's name.

    Where the rehearsal left one with a name that another took in the journal, by a change that is not rehearsed, it
    keeps the name.
    """
    holders: dict[str, UUID] = {}
    found: dict[UUID, StoredOrganization] = {}
    for org_id in sorted(there, key=lambda each: each not in diverged):
        state = there[org_id]
        key = state.name_key
        if key is not None and holders.setdefault(key, org_id) != org_id:
            state = without_name(state)
        found[org_id] = state
    return found
