"""What a step of events, results or states leaves in the database."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from org_events.kafka.whole import open_batch
from org_service.kafka.whole_batches import Unopened
from org_service.operate.restoring import records as wire
from org_service.operate.restoring.records import Glimpse
from org_service.store import restoring, staged
from org_service.store.database import DatabaseConnection
from org_service.store.staged import OutcomeRow


async def write(conn: DatabaseConnection, rows: Sequence[OutcomeRow]) -> Mapping[str, int]:
    """Write changes and outcomes into the journal."""
    if not rows:
        return {}
    await staged.stage_outcomes(conn, rows)
    written = await restoring.write(conn)
    return {"changes": written.changed, "other outcomes": written.decided}


async def keep_results(conn: DatabaseConnection, batches: Sequence[Glimpse], window: wire.Window) -> Mapping[str, int]:
    """Write outcomes that have no event."""
    found = [
        each
        for batch in await _find_worth_opening(conn, batches)
        for each in wire.read_results(batch.at, open_batch(batch.content), window)
    ]
    await staged.stage_parked(conn, [each for each in found if isinstance(each, UUID)])
    outcomes = [each for each in found if isinstance(each, wire.Outcome)]
    unknown = await restoring.find_unknown(conn, [each.position for each in outcomes])
    return await write(conn, [wire.read_outcome(each.record) for each in outcomes if each.position in unknown])


async def keep_states(conn: DatabaseConnection, batches: Sequence[Glimpse], through: int) -> None:
    """Keep organizations of which later versions are there than their changes say."""
    states = [
        each
        for batch in await _find_worth_opening(conn, batches)
        for each in wire.read_states(batch.at, open_batch(batch.content), through)
    ]
    unknown = await restoring.find_unknown(conn, [each.position for each in states])
    without = [each for each in states if each.position in unknown]
    newer = await staged.find_newer(conn, [(each.org_id, each.version) for each in without])
    await staged.stage_organizations(conn, wire.read_organizations(without, newer))


async def _find_worth_opening(conn: DatabaseConnection, batches: Sequence[Glimpse]) -> list[Unopened]:
    """Those that have, or may have, a record about a position without a row."""
    unknown = await restoring.find_unknown(conn, [position for each in batches for position in each.positions])
    return [each.batch for each in batches if not each.whole or not unknown.isdisjoint(each.positions)]
