"""Billing, a publisher: its customers are organizations, and each change is booked together with the command for it.

- A customer signs up: an account is opened. Where the service rejects its name, the outcome closes the account again.
- Customers of one group take a new brand: all of their names change, or none does. Where one is rejected, the others
  are changed back by compensating commands, which are enqueued in the transaction that hears of it.

    python docs/examples/billing/billing.py --kafka 127.0.0.1:9092 --database postgresql://127.0.0.1/billing

Kill it anywhere and run `--drain` to see it come to the same end.
"""

import argparse
import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from org_events import CreateOrganization, IfCurrent, Outcome, Result, Topics, UpdateOrganization, uuid7
from org_events.publishing import OrganizationClient
from org_events.publishing.outbox import Entry, Outbox

OUTBOX = Outbox()
TABLES = (
    "CREATE TABLE account (org_id uuid PRIMARY KEY, name text, state text, problem text)",
    "CREATE TABLE rename (command_id uuid PRIMARY KEY, brand uuid, org_id uuid, former text, wanted text)",
    *OUTBOX.table_statements,
)
ACTOR = "billing"


async def sign_up(connection: Any, name: str) -> UUID:
    """Open an account, in the caller's transaction."""
    org_id = uuid7()
    await connection.execute("INSERT INTO account VALUES ($1, $2, 'opening')", org_id, name)
    await OUTBOX.enqueue(connection, CreateOrganization(org_id=org_id, name=name), actor=ACTOR)
    return org_id


async def rebrand(connection: Any, wanted: dict[UUID, str]) -> None:
    """Change the names of a group, all or none, in the caller's transaction."""
    brand = uuid4()
    for org_id, name in sorted(wanted.items()):
        # Locked before it is enqueued: who changes this customer too comes before or after us, here and at the service.
        former = await connection.fetchval("SELECT name FROM account WHERE org_id = $1 FOR UPDATE", org_id)
        command_id = await _enqueue_rename(connection, org_id, former, name)
        await connection.execute(
            "INSERT INTO rename VALUES ($1, $2, $3, $4, $5)", command_id, brand, org_id, former, name
        )


async def book(connection: Any, entry: Entry, result: Result) -> None:
    """The outcome of a command, in the transaction that writes it into the outbox."""
    detail = result.problem.detail if result.problem else None
    if entry.type == CreateOrganization.type:
        state = "closed" if result.outcome is Outcome.REJECTED else "open"
        await connection.execute(
            "UPDATE account SET state = $2, problem = $3 WHERE org_id = $1", entry.org_id, state, detail
        )
    elif result.organization is not None:
        name = result.organization.name
        await connection.execute("UPDATE account SET name = $2, problem = NULL WHERE org_id = $1", entry.org_id, name)
    else:
        await connection.execute("UPDATE account SET problem = $2 WHERE org_id = $1", entry.org_id, detail)
        await _change_others_back(connection, entry.command_id)


async def _change_others_back(connection: Any, command_id: UUID) -> None:
    """Those whose own command is still on its way, too: this one comes behind it.

    What somebody else has changed meanwhile stays (`if_current`). A compensating command is in no brand, so nothing
    follows from its rejection.
    """
    others = (
        "SELECT other.org_id, other.former, other.wanted FROM rename JOIN rename AS other USING (brand) "
        "WHERE rename.command_id = $1 AND other.command_id <> $1"
    )
    for org_id, former, wanted in await connection.fetch(others, command_id):
        await _enqueue_rename(connection, org_id, wanted, former)


async def _enqueue_rename(connection: Any, org_id: UUID, former: str, name: str) -> UUID:
    command = UpdateOrganization(org_id=org_id, name=name, if_current=IfCurrent(name=former))
    return await OUTBOX.enqueue(connection, command, actor=ACTOR)


async def act(pool: Any, orgs: OrganizationClient) -> None:
    """Some days of a billing department."""
    async with pool.acquire() as connection, connection.transaction():
        for statement in TABLES:
            await connection.execute(statement)
        acme, works, *_ = [await sign_up(connection, name) for name in ("Acme", "Acme Works", "Bolt", "Bolt")]
    await OUTBOX.drain(orgs, pool, on_outcome=book, once=True)
    async with pool.acquire() as connection, connection.transaction():
        await rebrand(connection, {acme: "Screw", works: "Bolt"})
    await OUTBOX.drain(orgs, pool, on_outcome=book, once=True)


async def show(pool: Any) -> None:
    """Print the accounts, and how many commands had which outcome."""
    for account in await pool.fetch("SELECT * FROM account ORDER BY org_id"):
        print(f"{account['name']}: {account['state']}; {account['problem'] or 'no problem'}")
    for outcome, count in await pool.fetch("SELECT outcome, count(*) FROM org_outbox GROUP BY 1 ORDER BY 1"):
        print(f"{count} {outcome}")


async def main() -> None:
    """Act, or only drain, and show the accounts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--prefix", default="", help="of the topics")
    parser.add_argument("--drain", action="store_true", help="only come to an end with what is enqueued")
    given = parser.parse_args()
    client = OrganizationClient(bootstrap_servers=given.kafka, source="/billing", topics=Topics(given.prefix))
    async with client as orgs, asyncpg.create_pool(given.database, min_size=1) as pool:
        await (OUTBOX.drain(orgs, pool, on_outcome=book, once=True) if given.drain else act(pool, orgs))
        await show(pool)


if __name__ == "__main__":
    asyncio.run(main())
