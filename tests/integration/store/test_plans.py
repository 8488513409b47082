"""Each hot statement is served by the indexes that its description names, and reads no table from end to end.

On few rows, so the planner is told to use indexes where it can: what can't be read by one shows itself all the same.
The plans of `docs/sql` show what it chooses by itself on a million (`tests/contract/test_sql.py` reads them).
"""

from collections import defaultdict
from typing import Final

import pytest

from org_service.documentation.sql_pages import text_of
from org_service.settings import DatabaseSettings
from org_service.store.engine import Role, connect
from tests.bench.hot_statements import Hot, hot_statements
from tests.bench.plan_data import PlanData
from tests.bench.plans import explain, indexes_in, indexes_named, indexes_walked

pytestmark = pytest.mark.integration

ORGANIZATIONS: Final = 4_000
BATCH: Final = 20
ONE_ROW: Final = "journal_head"
WALKED: Final = {"organization_created_at_idx", "parked_defect_idx"}
"""Read from an end: as far as a page goes, and all of it because it has no other rows."""
BY_INDEX: Final = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"


async def test_hot_statements_use_the_indexes_that_they_are_described_with(database: DatabaseSettings) -> None:
    data = PlanData(ORGANIZATIONS, memberships=2 * ORGANIZATIONS)
    await data.load(database.url.get_secret_value())
    used: defaultdict[str, set[str]] = defaultdict(set)
    for role, statements in by_role(data).items():
        session = await connect(database, role)
        await session.execute(BY_INDEX)
        for hot in statements:
            plan = (await explain(session, hot)).replace(f"Seq Scan on {ONE_ROW}", "")
            assert "Seq Scan" not in plan, f"{hot.statement}\n{plan}"
            assert indexes_walked(plan) <= WALKED, f"{hot.statement}\n{plan}"
            # Statements of a family have one description, and not each uses all that it names.
            used[text_of(hot.statement)] |= indexes_in(plan)
        await session.close()
    for text, indexes in used.items():
        assert indexes == indexes_named(text), text


def by_role(data: PlanData) -> dict[Role, list[Hot]]:
    found: defaultdict[Role, list[Hot]] = defaultdict(list)
    for hot in hot_statements(data, BATCH):
        found[hot.role].append(hot)
    return found
