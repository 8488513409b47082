"""Tables that one session alone sees, in place of the real ones: where commands are rehearsed.

They are temporary tables with the names of the real ones. No statement of this package names a schema, and Postgres
looks for a table among those of the session first, so whatever runs in it finds these. Reference data have no
substitute there: those are read as they are.

Once the tables are made the session is read-only, and in such a transaction Postgres itself rejects every write but to
temporary tables (manual, SET TRANSACTION). So nothing else can be written, whoever's rights the session has and
whatever a statement says. The tables vanish with the session, also that of a process that was killed, and are never in
the WAL; no right is needed but TEMPORARY in the database, which everybody has who was not deprived of it.

What a batch is decided on is put there at the beginning of its transaction, and is gone at its end (ON COMMIT DELETE
ROWS): so the tables stay small however many commands are rehearsed. What has to outlive a batch, because the rehearsal
went another way than the journal, is in tables that have no real counterpart: `diverged` and `waiting`.
"""

from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, BigInteger, Integer, Text, Uuid, bindparam, text
from sqlalchemy.exc import DBAPIError

from org_service.domain.organization import StoredOrganization
from org_service.domain.outcomes import KeptRecord, NewOutcome
from org_service.domain.reasons import ParkReason
from org_service.errors import DeniedError, UnreachableError
from org_service.settings import DatabaseSettings
from org_service.store import journal, organizations, parked
from org_service.store.database import Database, DatabaseConnection
from org_service.store.roles import INSUFFICIENT_PRIVILEGE

# The names of constraints are part of the statements. LIKE gives those of the real tables where they are the default
# ones; `parked` has one that is not.
_MAKE: Final = text("""
DO $$
BEGIN
    SET temp_buffers = '64MB';
    CREATE TEMPORARY TABLE organization (LIKE organization INCLUDING ALL) ON COMMIT DELETE ROWS;
    CREATE TEMPORARY TABLE journal (LIKE journal INCLUDING ALL) ON COMMIT DELETE ROWS;
    CREATE TEMPORARY TABLE parked (
        LIKE parked INCLUDING ALL EXCLUDING INDEXES,
        CONSTRAINT parked_coordinates_key UNIQUE (topic, partition, "offset", broker_time)
    ) ON COMMIT DELETE ROWS;
    CREATE TEMPORARY TABLE journal_head (LIKE journal_head INCLUDING ALL);
    INSERT INTO journal_head (id, position) VALUES (1, 0);
    CREATE TEMPORARY TABLE diverged (id uuid PRIMARY KEY, name_key text COLLATE "C", organization text);
    CREATE INDEX ON diverged (name_key);
    CREATE TEMPORARY TABLE waiting (
        command_id uuid PRIMARY KEY, org_id uuid NOT NULL, request_digest bytea NOT NULL, partition integer NOT NULL,
        "offset" bigint NOT NULL
    );
    CREATE INDEX ON waiting (org_id);
    CREATE TEMPORARY TABLE given_up (name_key text COLLATE "C", position bigint, org_id uuid);
    CREATE INDEX ON given_up (name_key, position);
END $$
""")
_BEGUN: Final = text("SELECT 1")
_SET_READ_ONLY: Final = text("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY")
_ids = bindparam("ids", type_=ARRAY(Uuid))
_keys = bindparam("keys", type_=ARRAY(Text))
_FIND_DIVERGED: Final = text(
    "SELECT id, organization FROM diverged WHERE id = ANY(:ids) OR name_key = ANY(:keys)"
).bindparams(_ids, _keys)
_NOTE_DIVERGED: Final = text(
    "INSERT INTO diverged SELECT * FROM unnest(:ids, :keys, :organizations) "
    "ON CONFLICT (id) DO UPDATE SET name_key = excluded.name_key, organization = excluded.organization"
).bindparams(_ids, _keys, bindparam("organizations", type_=ARRAY(Text)))
_FIND_WAITING: Final = text(
    'SELECT command_id, org_id, request_digest, partition, "offset" FROM waiting WHERE org_id = ANY(:ids)'
).bindparams(_ids)
_NOTE_WAITING: Final = text(
    "INSERT INTO waiting VALUES (:command_id, :org_id, :request_digest, :partition, :offset) ON CONFLICT DO NOTHING"
).bindparams(
    bindparam("command_id", type_=Uuid),
    bindparam("org_id", type_=Uuid),
    bindparam("partition", type_=Integer),
    bindparam("offset", type_=BigInteger),
)
_NOTE_GIVEN_UP: Final = text("INSERT INTO given_up SELECT * FROM unnest(:keys, :positions, :ids)").bindparams(
    _keys, bindparam("positions", type_=ARRAY(BigInteger)), _ids
)
_FIND_GIVEN_UP: Final = text(
    "SELECT asked.name_key, asked.position, first.org_id FROM unnest(:keys, :positions) AS asked (name_key, position) "
    "CROSS JOIN LATERAL (SELECT given_up.org_id FROM given_up WHERE given_up.name_key = asked.name_key "
    "AND given_up.position >= asked.position ORDER BY given_up.position LIMIT 1) AS first"
).bindparams(_keys, bindparam("positions", type_=ARRAY(BigInteger)))
_MOMENTS: Final = ("created_at", "updated_at", "deactivated_at", "deleted_at")


class Waiting(NamedTuple):
    """A command that is parked, in the rehearsal or before it."""

    command_id: UUID
    org_id: UUID
    request_digest: bytes
    partition: int
    offset: int


@dataclass
class Given:
    """What a batch is decided on; put into the tables at the beginning of each of its transactions."""

    organizations: dict[UUID, StoredOrganization] = field(default_factory=dict[UUID, StoredOrganization])
    journaled: Sequence[NewOutcome] = ()
    """Outcomes that were recorded before, of commands that come again."""
    waiting: list[Waiting] = field(default_factory=list[Waiting])


class Scratch(Database):
    """A session with tables of its own in place of the real ones. `open` first; one user at a time."""

    def __init__(self, settings: DatabaseSettings) -> None:
        """Make one; it connects when opened.

        Args:
            settings: Of the real database.
        """
        super().__init__(settings, "operate", direct=True)
        self._conn: DatabaseConnection | None = None
        self.given = Given()
        """What the next transaction begins with."""

    async def open(self) -> None:
        """Connect, and make the tables.

        Raises:
            DeniedError: The login may make no temporary tables.
        """
        conn = self._conn = await self._engine.connect()
        try:
            await conn.execute(_MAKE)
            await conn.execute(_SET_READ_ONLY)
            await conn.commit()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
                raise
            raise DeniedError(
                f"a rehearsal works on temporary tables, and Postgres does not allow them ({error.orig}): run `orgs "
                "migrate`, and GRANT TEMPORARY ON DATABASE to orgs_operate."
            ) from error

    def connect(self) -> AbstractAsyncContextManager[DatabaseConnection]:
        """As `begin`: there is but one connection."""
        return self.begin()

    def begin(self) -> AbstractAsyncContextManager[DatabaseConnection]:
        """A transaction on the tables, with `given` in them and nothing else."""
        return self._begin(self.given)

    def note(self) -> AbstractAsyncContextManager[DatabaseConnection]:
        """A transaction for what outlives a batch."""
        return self._begin(None)

    @asynccontextmanager
    async def _begin(self, given: Given | None) -> AsyncGenerator[DatabaseConnection]:
        conn = self._conn
        # Never another connection: there the names would mean the real tables.
        if conn is None or conn.closed or conn.invalidated:
            raise UnreachableError("the session with the tables of the rehearsal is gone")
        async with conn.begin():
            if given is not None:
                await _fill(conn, given)
            yield conn

    async def close(self) -> None:
        """End the session, and with it the tables."""
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()
        await super().close()


async def _fill(conn: DatabaseConnection, given: Given) -> None:
    now = datetime.now(UTC)
    if given.organizations:
        created = list(given.organizations.values())
        await organizations.write(conn, created=created, updated=[], names=False, moment=now)
    if given.journaled:
        # COPY goes past SQLAlchemy, which begins the transaction at its own first statement: alone it would be one.
        await conn.execute(_BEGUN)
        # Below those that the batch takes.
        await journal.append(conn, -len(given.journaled) - 1, given.journaled)
    if given.waiting:
        await parked.park(conn, [_as_kept(each, now) for each in given.waiting], now)


def _as_kept(waiting: Waiting, now: datetime) -> KeptRecord:
    return KeptRecord(
        topic="",
        partition=waiting.partition,
        offset=waiting.offset,
        broker_time=now,
        key=None,
        value=None,
        headers="[]",
        org_id=waiting.org_id,
        command_id=waiting.command_id,
        request_digest=waiting.request_digest,
        reason=ParkReason.QUEUED_BEHIND,
        detail="",
        actor=None,
        authenticated_by=None,
        value_bytes=None,
        value_sha256=None,
    )


async def find_diverged(
    conn: DatabaseConnection, ids: Collection[UUID], name_keys: Collection[str]
) -> dict[UUID, StoredOrganization | None]:
    """What organizations are in the rehearsal that are others than in the journal; None of one that isn't there.

    Args:
        conn: Of a scratch session.
        ids: These are looked for.
        name_keys: And whoever holds these.
    """
    rows = await conn.execute(_FIND_DIVERGED, {"ids": list(ids), "keys": list(name_keys)})
    return {row[0]: None if row[1] is None else _read(row[1]) for row in rows}


async def note_diverged(conn: DatabaseConnection, found: Iterable[tuple[UUID, StoredOrganization | None]]) -> None:
    """Keep what organizations are in the rehearsal."""
    rows = [(org_id, each and each.name_key, None if each is None else _written(each)) for org_id, each in found]
    if rows:
        ids, keys, texts = zip(*rows, strict=True)
        await conn.execute(_NOTE_DIVERGED, {"ids": list(ids), "keys": list(keys), "organizations": list(texts)})


async def find_waiting(conn: DatabaseConnection, org_ids: Collection[UUID]) -> list[Waiting]:
    """The commands of organizations that the rehearsal parked."""
    return [Waiting._make(row) for row in await conn.execute(_FIND_WAITING, {"ids": list(org_ids)})]


async def note_waiting(conn: DatabaseConnection, rows: Sequence[Waiting]) -> None:
    """Keep commands that the rehearsal parked."""
    await conn.execute(_NOTE_WAITING, [row._asdict() for row in rows])


async def note_given_up(conn: DatabaseConnection, rows: Sequence[tuple[str, int, UUID]]) -> None:
    """Keep which names were given up at which positions by whom."""
    if rows:
        keys, positions, ids = zip(*rows, strict=True)
        await conn.execute(_NOTE_GIVEN_UP, {"keys": list(keys), "positions": list(positions), "ids": list(ids)})


async def find_given_up(conn: DatabaseConnection, asked: Collection[tuple[str, int]]) -> dict[tuple[str, int], UUID]:
    """Who was the first to give up a name at a position or later."""
    keys, positions = zip(*asked, strict=True)
    rows = await conn.execute(_FIND_GIVEN_UP, {"keys": list(keys), "positions": list(positions)})
    return {(row[0], row[1]): row[2] for row in rows}


def _written(organization: StoredOrganization) -> str:
    return orjson.dumps({**organization._asdict(), "id": str(organization.id)}).decode()


def _read(written: str) -> StoredOrganization:
    document: dict[str, Any] = orjson.loads(written)
    for moment in _MOMENTS:
        if document[moment] is not None:
            document[moment] = datetime.fromisoformat(document[moment])
    document["id"] = UUID(document["id"])
    return StoredOrganization(**document)
