"""Spans of a batch that was committed: of each sampled command what was decided."""

from org_events.commands import COMMANDS
from org_service.domain.fold import Plan
from org_service.telemetry.tracing import BatchSpan


def add_spans(batch: BatchSpan, plan: Plan, start: int) -> None:
    """Add what a transaction came to.

    Args:
        batch: Of the worker.
        plan: Of the transaction.
        start: The journal position before its first row.
    """
    for position, row in enumerate(plan.journal, start + 1):
        if batch.may_take(row.traceparent):
            about = {
                "orgs.command.id": str(row.command_id),
                "orgs.outcome": row.outcome,
                "orgs.code": row.code,
                "orgs.position": position,
            }
            if row.org_id is not None:
                about["orgs.organization.id"] = str(row.org_id)
            # The type of what is no command of ours is a text of its sender.
            batch.add(
                f"decide {row.command_type if row.command_type in COMMANDS else 'unknown'}", row.traceparent, about
            )
    for reply in plan.replies:
        request = reply.request
        if batch.may_take(request.traceparent):
            about = {"orgs.command.id": str(request.command_id), "orgs.outcome": reply.kind}
            batch.add("reply", request.traceparent, about)
