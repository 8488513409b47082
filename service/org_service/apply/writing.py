"""What a plan changes is written in one way, whoever made it: a worker's batch, or a release of what is parked."""

from datetime import datetime

from org_service import probes
from org_service.domain.fold import Plan
from org_service.errors import RefoldError
from org_service.probes import probe
from org_service.store import journal, organizations
from org_service.store.database import DatabaseConnection


async def write_decided(conn: DatabaseConnection, plan: Plan, now: datetime) -> int:
    """Write the organizations and the journal of a plan; what it parks is the caller's, and comes before.

    Args:
        conn: In the transaction that locked and read what the plan was made from; it is to be committed at once, as
            every other one waits for the head of the journal.
        plan: What was decided.
        now: When.

    Returns:
        The journal position before the first row.

    Raises:
        RefoldError: A rival took a name that was held temporarily: roll back, and decide again.
    """
    if probes.listeners:
        await probe("apply.before_positions")
    start = await journal.take_positions(conn, len(plan.journal)) if plan.names else 0
    if plan.created or plan.updated:
        await organizations.write(
            conn,
            created=list(plan.created.values()),
            updated=list(plan.updated.values()),
            names=plan.names,
            moment=now,
        )
    if plan.journal:
        if not plan.names:
            start = await journal.take_positions(conn, len(plan.journal))
        # guarantee 2: the outcome of each command, in the transaction of its change; a second one fails at the
        # unique id.
        await journal.append(conn, start, plan.journal)
    # The head is ours from here on: whatever has an earlier position is committed, and can be seen.
    if await organizations.find_holders(conn, plan.find_passing_names()):
        raise RefoldError("another transaction took a name that this batch held temporarily")
    return start
