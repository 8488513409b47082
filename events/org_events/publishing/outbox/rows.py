"""A row of the outbox, and every statement on the table.

One organization's rows are sent one after the other: only the first undecided one, its *head*, may be taken. A head
that somebody has taken stays undecided, so what is behind it stays behind it; `SKIP LOCKED` alone would hand that out
to the next process. Taking walks from organization to organization on the index of undecided rows, so a long queue of
one organization costs as much as a short one; it continues where the last walk ended, so that everybody has their turn.

A row that was taken is due again when its lease ends. Whoever takes it then sends the same command with the same id,
which takes effect once, and gets the same outcome (guarantee 1): two processes with one row do no harm.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from org_events.results import Result

TABLE: Final = "org_outbox"
"""In the statements; replaced where the table has another name."""

_ENQUEUE: Final = """
INSERT INTO org_outbox (id, org_id, type, body, actor)
VALUES (CAST(:id AS uuid), CAST(:org_id AS uuid), CAST(:type AS text), CAST(CAST(:body AS text) AS json),
        CAST(:actor AS text))
"""

_TAKE: Final = """
WITH RECURSIVE head AS (
    (SELECT org_id, id, due_at FROM org_outbox
     WHERE decided_at IS NULL AND org_id >= CAST(:first AS uuid) AND org_id <= CAST(:last AS uuid)
     ORDER BY org_id, number LIMIT 1)
    UNION ALL
    SELECT following.org_id, following.id, following.due_at
    FROM head CROSS JOIN LATERAL (
        SELECT org_id, id, due_at FROM org_outbox
        WHERE decided_at IS NULL AND org_id > head.org_id AND org_id <= CAST(:last AS uuid)
        ORDER BY org_id, number LIMIT 1
    ) AS following
),
due AS MATERIALIZED (SELECT id FROM head WHERE due_at <= now() LIMIT CAST(:rows AS bigint)),
taken AS MATERIALIZED (
    SELECT id FROM org_outbox WHERE id IN (SELECT id FROM due) AND decided_at IS NULL AND due_at <= now()
    FOR UPDATE SKIP LOCKED
)
UPDATE org_outbox
SET due_at = now() + make_interval(secs => CAST(:lease_s AS double precision)), tries = tries + 1
WHERE id IN (SELECT id FROM taken)
RETURNING id, org_id, type, CAST(body AS text) AS body, actor, enqueued_at, tries
"""
"""The second look, under the lock, sees what was decided or taken since the walk. A head stays the head until then."""

_LEASE: Final = """
UPDATE org_outbox SET due_at = now() + make_interval(secs => CAST(:lease_s AS double precision))
WHERE id IN (
    SELECT id FROM org_outbox WHERE id = ANY(CAST(:ids AS uuid[])) AND decided_at IS NULL FOR UPDATE SKIP LOCKED
)
"""
"""What is locked is being decided, and waiting for it could end in a deadlock."""

_DECIDE: Final = """
UPDATE org_outbox
SET decided_at = clock_timestamp(), outcome = CAST(:outcome AS text), result = CAST(CAST(:result AS text) AS json),
    trouble = NULL
WHERE id = CAST(:id AS uuid) AND decided_at IS NULL
RETURNING id
"""

_POSTPONE: Final = """
UPDATE org_outbox
SET due_at = now() + make_interval(secs => CAST(:wait_s AS double precision)), trouble = CAST(:trouble AS text),
    outcome = coalesce(CAST(:outcome AS text), outcome),
    result = coalesce(CAST(CAST(:result AS text) AS json), result)
WHERE id = CAST(:id AS uuid) AND decided_at IS NULL
"""

_PURGE: Final = """
DELETE FROM org_outbox WHERE id IN (
    SELECT id FROM org_outbox
    WHERE decided_at < now() - make_interval(secs => CAST(:keep_s AS double precision))
    ORDER BY decided_at LIMIT CAST(:rows AS bigint) FOR UPDATE SKIP LOCKED
)
RETURNING id
"""

_COUNT: Final = """
SELECT count(*) AS waiting,
       CAST(coalesce(extract(epoch FROM now() - min(enqueued_at)), 0) AS double precision) AS oldest_s
FROM org_outbox WHERE decided_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A command as it was enqueued."""

    command_id: UUID
    org_id: UUID
    type: str
    body: bytes
    """JSON, as it is sent."""
    actor: str | None
    enqueued_at: datetime
    tries: int
    """How often it was taken to be sent, this time included."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The entry of a row."""
        return cls(
            row["id"], row["org_id"], row["type"], row["body"].encode(), row["actor"], row["enqueued_at"], row["tries"]
        )


OnOutcome = Callable[[Any, Entry, Result], Awaitable[None]]
"""Called with a connection (or session) in the transaction that writes a final outcome into its row."""


class Statements:
    """Every statement, with the table's own name.

    Args:
        table: The name.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self.enqueue = self.of(_ENQUEUE)
        self.take = self.of(_TAKE)
        self.lease = self.of(_LEASE)
        self.decide = self.of(_DECIDE)
        self.postpone = self.of(_POSTPONE)
        self.purge = self.of(_PURGE)
        self.count = self.of(_COUNT)

    def of(self, statement: str) -> str:
        """A statement, with the table's own name."""
        return statement.replace(TABLE, self._table)
