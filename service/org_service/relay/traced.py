"""Spans of a chunk that was published: of each sampled command that its event, or its outcome alone, went out."""

from collections.abc import Sequence
from itertools import islice

from org_service.domain.outcomes import JournaledOutcome
from org_service.telemetry.tracing import LINKS_MAX, Exemplar, Tracing, is_sampled


def pick(rows: Sequence[JournaledOutcome]) -> list[JournaledOutcome]:
    """The rows that may get a span, without what they say: a chunk is held until it is published."""
    sampled = (row for row in rows if is_sampled(row.traceparent))
    return [row._replace(before=None, after=None, problem=None) for row in islice(sampled, LINKS_MAX)]


def add_spans(tracing: Tracing, rows: Sequence[JournaledOutcome], published: int, began: float) -> Exemplar | None:
    """Make the spans of rows that were published.

    Each begins where its row was recorded, so that its length is how long the subscribers waited for it.

    Args:
        tracing: That of the process.
        rows: Those that `pick` found.
        published: How many there were in all.
        began: The transaction, by `time.perf_counter`.
    """
    chunk = tracing.begin_events(began)
    for row in rows:
        if chunk.may_take(row.traceparent):
            about = {
                "orgs.command.id": str(row.command_id),
                "orgs.outcome": row.outcome,
                "orgs.code": row.code,
                "orgs.position": row.position,
            }
            if row.org_id is not None:
                about["orgs.organization.id"] = str(row.org_id)
            name = f"publish {row.event_type or 'outcome'}"
            chunk.add(name, row.traceparent, about, int(row.recorded_at.timestamp() * 1e9))
    return chunk.end({"messaging.batch.message_count": published})
