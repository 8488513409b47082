"""Digests of both sides compared; what differs is compared row by row, and named.

Only rows and records decide: digests say where to look. Where they differ and the rows don't (somebody repaired it
meanwhile), the verdict is `inconclusive`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import md5
from itertools import islice
from typing import Any, Final, TypeVar
from uuid import UUID

from org_service.domain.digests import BUCKETS, NOTHING, WINDOW, Digest, add, find_dirty, window_of
from org_service.domain.outcomes import JournaledOutcome
from org_service.kafka.client import TopicPartition
from org_service.operate.verifying import facts, rows
from org_service.operate.verifying.found import Found
from org_service.operate.verifying.jobs import Readers
from org_service.operate.verifying.logs import Entry, Log, LogScan, bucket_of, find_record
from org_service.operate.verifying.report import Comparison, Difference, Kind, Report, Verdict
from org_service.operate.verifying.states import StateEntry
from org_service.settings import Settings
from org_service.store import journal, organizations, verification
from org_service.store.database import Database, DatabaseConnection

ROWS_MAX: Final = 200_000
"""Compared one by one in one reading of a topic; their digests are in memory."""
_STEP: Final = 1_000
"""Rows in one statement that asks for certain ones."""
_UNEXPLAINED: Final = "digests differed, and the rows do not (any more): verify again"
_KINDS: Final[Mapping[Log, tuple[Kind, Kind, Kind]]] = {
    "events": (Kind.EVENT_MISSING, Kind.EVENT_DIFFERS, Kind.EVENT_FOREIGN),
    "results": (Kind.RESULT_MISSING, Kind.RESULT_DIFFERS, Kind.RESULT_FOREIGN),
}


_Item = TypeVar("_Item")


def _batched(items: Iterable[_Item], size: int) -> Iterator[tuple[_Item, ...]]:
    source = iter(items)
    while batch := (*islice(source, size),):
        yield batch


def _fit_buckets(rows: int) -> int:
    """How many buckets of a journal fit into memory."""
    return max(1, ROWS_MAX * BUCKETS // max(rows, 1))


class Comparing:
    """Compares what one verification found."""

    def __init__(self, report: Report, found: Found, readers: Readers, settings: Settings, database: Database) -> None:
        self._report = report
        self._found = found
        self._readers = readers
        self._settings = settings
        self._kafka = settings.kafka
        self._database = database
        self._explained: set[int] = set()
        """Buckets in which the table, not the topic, is known to be wrong."""

    async def run(self, *, tables: bool) -> None:
        """Compare everything; without the tables as of an earlier position."""
        await self._positions()
        await self._commands()
        if tables:
            await self._organizations()
        for log in ("events", "results"):
            await self._log(log)
        self._blame_journal()
        if tables:
            await self._state()
            comparing = facts.ComparingFacts(self._report, self._found, self._settings, self._database)
            await comparing.run()

    async def _positions(self) -> None:
        through, gaps = self._report.position, self._found.gaps
        comparison = self._report.comparison("positions of the journal")
        comparison.checked = self._found.rows
        given_up = sum(max(0, min(gap.last_position, through) - gap.first_position + 1) for gap in gaps)
        if given_up:
            comparison.lower_to(Verdict.INCOMPLETE, f"{given_up:,} positions were given up by `orgs journal advance`")
        for after, last in self._found.short:
            async with self._database.connect() as conn:
                holes = await verification.find_holes(conn, after, last, _STEP)
            lost = [
                Difference(Kind.JOURNAL_HOLE, "", "journal_head", "journal", found=None, expected="a row", position=at)
                for first, end in holes
                for at in range(first, min(end, first + _STEP) + 1)
                if not any(gap.holds(at) for gap in gaps)
            ]
            self._report.add(comparison, lost)

    async def _commands(self) -> None:
        comparison = self._report.comparison("one outcome a command")
        comparison.checked = self._found.rows
        async with self._database.connect() as conn:
            if verification.COMMANDS_UNIQUE in await verification.read_unique_indexes(conn):
                return
            double = await verification.find_double_commands(conn, self._report.position, _STEP)
        self._report.add(
            comparison,
            [
                Difference(
                    Kind.TWO_OUTCOMES, "", "journal", "journal", f"command {command_id}", at[0], at[1], position=at[1]
                )
                for command_id, at in double.items()
            ],
        )

    async def _organizations(self) -> None:
        """The table is what the last changes left, and each change follows the one before."""
        comparison = self._report.comparison("organizations = journal")
        comparison.checked = self._found.organizations
        for ids in _batched(self._found.differing, _STEP):
            self._explained.update(bucket_of(str(each)) for each in ids)
            self._report.add(comparison, await self._compare_organizations(ids))
        through = self._report.position
        for buckets in self._split(await self._find_loose_ends(), _fit_buckets(through), "buckets"):
            async with self._database.connect() as conn:
                lost = await verification.find_lost_organizations(conn, through, buckets, _STEP)
                links = await verification.find_broken_links(conn, through, buckets, _STEP)
            self._report.add(
                comparison,
                [Difference(Kind.ORGANIZATION_MISSING, str(each), "journal", "organization") for each in lost],
            )
            self._add_links(comparison, links)
            seen = {bucket_of(str(each)) for each in lost} | {bucket_of(str(each.org_id)) for each in links}
            self._explained |= seen
            if buckets - self._explained:
                comparison.lower_to(Verdict.INCONCLUSIVE, _UNEXPLAINED)

    async def _find_loose_ends(self) -> set[int]:
        """Buckets in which the changes do not lead to what the table has."""
        last_links, chain = self._found.last_links, dict[int, Digest]()
        if sum(last_links.values(), NOTHING) == self._found.chain:
            return set()
        for after in range(0, self._report.position, WINDOW):
            async with self._database.connect() as conn:
                add(chain, await verification.read_chain(conn, after, min(after + WINDOW, self._report.position)))
        return find_dirty(chain, last_links)

    def _add_links(self, comparison: Comparison, links: Sequence[verification.BrokenLink]) -> None:
        for link in links:
            if self._found.gaps:
                comparison.lower_to(Verdict.INCOMPLETE, "changes before some were given up by `orgs journal advance`")
                continue
            follows = link.version == (link.version_before or 0) + 1
            difference = Difference(
                Kind.JOURNAL_VERSIONS, str(link.org_id), "journal", "journal", position=link.position
            )
            if follows:
                difference = difference._replace(field="before", expected="what the change before left")
            else:
                difference = difference._replace(
                    field="version", expected=(link.version_before or 0) + 1, found=link.version
                )
            self._report.add(comparison, [difference])

    async def _compare_organizations(self, ids: Collection[UUID]) -> list[Difference]:
        """In a snapshot of their own: they may have changed since."""
        differences: list[Difference] = []
        async with self._database.snapshot() as conn:
            last = await read_last_changes(conn, ids, await journal.read_head(conn))
            found = {each.id: each for each in await organizations.find_by_ids(conn, ids)}
        for org_id in ids:
            row, now = last.get(org_id), found.get(org_id)
            if row is None:
                differences.append(Difference(Kind.ORGANIZATION_UNKNOWN, str(org_id), "journal", "organization"))
            elif now is not None:
                must_be = rows.restore(row)
                fields = [("", "erased", None)] if must_be is None else rows.differing_fields(must_be, now)
                named = Difference(
                    Kind.ORGANIZATION_DIFFERS, str(org_id), "journal", "organization", position=row.position
                )
                differences += [named._replace(field=name, expected=left, found=right) for name, left, right in fields]
        return differences

    def _split(self, numbers: Iterable[int], at_once: int, what: str) -> Iterable[set[int]]:
        """As many at once as fit into memory, until enough is named."""
        for some in _batched(sorted(numbers), at_once):
            if self._report.full:
                self._report.notes.append(f"more {what} differ than were compared row by row")
                return
            yield set(some)

    async def _log(self, log: Log) -> None:
        """Events or results hold what the journal says."""
        found, through = self._found, self._report.position
        expected, scan, low, topic = (
            (found.events, found.events_scan, found.events_low, self._kafka.topics.events)
            if log == "events"
            else (found.results, found.results_scan, found.results_low, self._kafka.topics.results)
        )
        comparison = self._report.comparison(f"{topic} = journal")
        comparison.checked = sum(each.things for each in scan.digests.values())
        if low:
            comparison.lower_to(Verdict.INCOMPLETE, f"retention took positions up to {low:,}")
        self._add_strange(comparison, log, topic, scan)
        dirty = find_dirty(expected, scan.digests) | await self._look_at_repeats(log, scan)
        for windows in self._split(dirty, ROWS_MAX // WINDOW, "windows of positions"):
            again = await self._readers.read_log(
                log, found.of(topic), windows, low=low, through=through, skip=found.emptied
            )
            must_be = await self._expect(log, windows, low)
            differences, superseded = await self._compare_log(log, topic, must_be, again.entries)
            self._report.add(comparison, differences)
            if superseded:
                self._report.notes.append(
                    f"{topic}: {superseded:,} records are wrong with the right one behind them, or an operator gave "
                    "them up, or erased their organization"
                )
            elif not differences:
                comparison.lower_to(Verdict.INCONCLUSIVE, _UNEXPLAINED)

    def _add_strange(self, comparison: Comparison, log: Log, topic: str, scan: LogScan) -> None:
        foreign = _KINDS[log][2]
        for each in scan.strange:
            where = f"{topic}[{each.partition}] offset {each.offset}"
            self._report.add(comparison, [Difference(foreign, each.key, "journal", where, "", found=each.why)])
        position, partition, offset = scan.last
        if position > self._found.published:
            where = f"{topic}[{partition}] offset {offset}"
            named = Difference(foreign, "", "journal", where, "position", found=position, position=position)
            self._report.add(comparison, [named])

    async def _look_at_repeats(self, log: Log, scan: LogScan) -> set[int]:
        """The windows of repeated records that must be looked at one by one."""
        dirty: set[int] = set()
        for positions in _batched(sorted(scan.repeats), _STEP):
            async with self._database.connect() as conn:
                there = await verification.read_rows_at(conn, positions)
            for position, row in there.items():
                right, repeats = rows.digest_of(row, log), scan.repeats[position]
                if any(each.digest != right or (log == "events" and not each.replayed) for each in repeats):
                    dirty.add(window_of(position))
        if scan.repeats_left_out:
            self._report.notes.append(f"{scan.repeats_left_out:,} repeated {log} were not compared with the first")
        return dirty

    async def _expect(self, log: Log, windows: Iterable[int], low: int) -> dict[int, bytes]:
        """Digests of what the relay makes of the rows of windows, by position."""
        must_be: dict[int, bytes] = {}
        for after in sorted(window * WINDOW for window in windows):
            async with self._database.connect() as conn:
                last = min(after + WINDOW, self._report.position)
                window = await verification.read_rows(conn, max(after, low), last)
            for row in window:
                digest = rows.digest_of(row, log)
                if digest is not None:
                    must_be[row.position] = digest
        return must_be

    async def _compare_log(
        self, log: Log, topic: str, must_be: Mapping[int, bytes], there: Mapping[int, Sequence[Entry]]
    ) -> tuple[list[Difference], int]:
        """Differences, and how many wrong records have the right one behind them."""
        missing, differs, foreign = _KINDS[log]
        wrong: dict[int, tuple[Kind, Entry | None]] = {}
        async with self._database.connect() as conn:  # erased since the snapshot
            emptied = await verification.find_emptied(conn, there.keys() - must_be.keys())
        superseded = len(emptied)
        for position in sorted((must_be.keys() | there.keys()) - emptied):
            right, entries = must_be.get(position), there.get(position, ())
            first = [each for each in entries if not each.replayed]
            good = [each for each in first if each.digest == right]
            bad = [each for each in entries if each.digest != right and (each.replayed or each not in good)]
            if right is None and any(gap.holds(position) for gap in self._found.gaps):
                superseded += 1
            elif right is None:
                wrong[position] = foreign, entries[0]
            elif not first:
                wrong[position] = missing, None
            elif not good or first[-1].digest != right or any(each.replayed for each in bad):
                wrong[position] = differs, bad[-1]
            elif bad:
                superseded += len(bad)
            elif len(good) > 1 and log == "events":
                wrong[position] = Kind.EVENT_DOUBLED, good[-1]
        differences: list[Difference] = []
        for position in [*wrong][: self._report.room]:
            differences += await self._name(log, topic, position, *wrong[position])
        self._report.counts.update(kind for kind, _ in [*wrong.values()][self._report.room :])
        return differences, superseded

    async def _name(self, log: Log, topic: str, position: int, kind: Kind, entry: Entry | None) -> list[Difference]:
        async with self._database.connect() as conn:
            row = (await verification.read_rows_at(conn, [position])).get(position)
        subject = "" if row is None else str(row.org_id or row.command_id)
        where = topic if entry is None else f"{topic}[{entry.partition}] offset {entry.offset}"
        named = Difference(kind, subject, "journal", where, position=position)
        if entry is None or kind is Kind.EVENT_DOUBLED:
            return [named]
        record = await self._read_record(topic, entry)
        if row is None or record is None:
            return [named._replace(subject=subject or (getattr(record, "key", None) or b"").decode(errors="replace"))]
        fields = [*rows.differing_members(rows.body_of(row, log), record.value)]
        return [named._replace(field=name, expected=must_be, found=is_now) for name, must_be, is_now in fields]

    async def _read_record(self, topic: str, entry: Entry | StateEntry) -> Any:
        at = TopicPartition(topic, entry.partition)
        return await find_record(self._kafka, at, entry.offset, self._found.bounds[at].end)

    def _blame_journal(self) -> None:
        """Where event and result agree against the journal, it is the journal's row that was changed."""
        by_kind = {
            kind: {each.position for each in self._report.differences if each.kind is kind}
            for kind in (Kind.EVENT_DIFFERS, Kind.RESULT_DIFFERS, Kind.EVENT_FOREIGN, Kind.RESULT_FOREIGN)
        }
        both = (by_kind[Kind.EVENT_DIFFERS] & by_kind[Kind.RESULT_DIFFERS]) - {None}
        kinds = (Kind.EVENT_DIFFERS, Kind.RESULT_DIFFERS)
        for number, each in enumerate(self._report.differences):
            if each.position in both and each.kind in kinds:
                self._report.differences[number] = each._replace(kind=Kind.JOURNAL_CHANGED)
                self._report.counts[each.kind] -= 1
                self._report.counts[Kind.JOURNAL_CHANGED] += 1
        self._report.counts = +self._report.counts

    async def _state(self) -> None:
        """The state topic folds to what the last changes left."""
        found, topic, through = self._found, self._kafka.topics.state, self._report.position
        comparison = self._report.comparison(f"{topic} = journal")
        comparison.checked = found.state_scan.keys
        for each in found.state_scan.strange:
            where = f"{topic}[{each.partition}] offset {each.offset}"
            self._report.add(comparison, [Difference(Kind.STATE_FOREIGN, each.key, "journal", where, found=each.why)])
        moved = {bucket_of(each) for each in found.state_scan.moved}
        dirty = find_dirty(found.state, found.state_scan.digests) | moved
        for buckets in self._split(dirty, _fit_buckets(through), "buckets"):
            async with self._database.connect() as conn:
                must_be = await verification.read_states(conn, through, buckets)
            again = await self._readers.read_state(found.of(topic), buckets, through=through, partitions=found.grown_to)
            differences = await self._compare_state(topic, must_be, again.entries, {*again.moved})
            self._report.add(comparison, differences)
            if not differences and buckets - self._explained - moved:
                comparison.lower_to(Verdict.INCONCLUSIVE, _UNEXPLAINED)

    async def _compare_state(
        self,
        topic: str,
        must_be: Mapping[UUID, tuple[int, int, str | None]],
        there: Mapping[str, StateEntry],
        moved: Collection[str],
    ) -> list[Difference]:
        differences: list[Difference] = []
        ours = {str(org_id): state for org_id, state in must_be.items()}
        for org_id in sorted(ours.keys() | there.keys()):
            state, entry = ours.get(org_id), there.get(org_id)
            digest = entry.digest if entry is not None else b""
            if org_id in moved or len(differences) >= self._report.room:
                continue
            right = b"" if state is None or state[2] is None else digest_state(org_id, state[0], state[2])
            if digest == right:
                continue
            where = topic if entry is None else f"{topic}[{entry.partition}] offset {entry.offset}"
            position = None if state is None else state[1]
            kind: Kind = Kind.STATE_DIFFERS
            if state is None:
                kind = Kind.STATE_FOREIGN
            elif not right:
                kind = Kind.TOMBSTONE_MISSING
            elif not digest:
                kind = Kind.STATE_MISSING
            named = Difference(kind, org_id, "journal", where, position=position)
            if kind is not Kind.STATE_DIFFERS or entry is None or state is None:
                differences.append(named)
                continue
            record = await self._read_record(topic, entry)
            value = None if record is None else record.value
            fields = rows.differing_members((state[2] or "").encode(), value)
            differences += [named._replace(field=name, expected=left, found=right_) for name, left, right_ in fields]
        return differences


def digest_state(org_id: str, version: int, after: str) -> bytes:
    """As `scan_state` makes it of a record."""
    return md5(f"{org_id} {version} {after}".encode()).digest()  # noqa: S324 - see `store.verification`


async def read_last_changes(
    conn: DatabaseConnection, ids: Collection[UUID], through: int
) -> dict[UUID, JournaledOutcome]:
    """The last change of each organization up to a position; those without one are left out."""
    states = await journal.select_states(conn, ids, through)
    there = await verification.read_rows_at(conn, [each.position for each in states.values()])
    return {row.org_id: row for row in there.values() if row.org_id is not None}
