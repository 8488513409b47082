"""Commands that are sent exactly when your own transaction commits, and whose outcomes come back into your database.

    outbox = Outbox()
    async with sessions.begin() as session:  # or a connection of asyncpg, or of SQLAlchemy
        session.add(customer)
        await outbox.enqueue(session, CreateOrganization(org_id=customer.org_id, name=customer.name))

    async with OrganizationClient(bootstrap_servers="kafka:9092", source="/billing") as orgs:
        await outbox.drain(orgs, engine)  # in one process or in many, until it is cancelled

Needs `org-events[kafka,postgres]`; SQLAlchemy, where you use it, is yours. `python -m org_events.publishing.outbox`
prints the table.
"""

from org_events.publishing.outbox.metrics import Metrics
from org_events.publishing.outbox.outbox import Outbox
from org_events.publishing.outbox.rows import Entry, OnOutcome

__all__ = ["Entry", "Metrics", "OnOutcome", "Outbox"]
