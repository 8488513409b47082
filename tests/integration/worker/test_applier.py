"""The applier on a real Postgres."""
from uuid import uuid4
import asyncpg
import pytest
from org_events.commands import *
from org_service.worker.applier import Applier
from tests.support.records import record_of

pytestmark = pytest.mark.integration

async def test_smoke(settings):
    from org_service.telemetry import set_up_logging
    set_up_logging(settings.log)
    applier = Applier(settings)
    o = uuid4()
    r=[record_of(CreateOrganization(org_id=o, name="Acme")), record_of(UpdateOrganization(org_id=o, domain="acme.com"))]
    await applier.apply(r)
    await applier.apply(r)
    await applier.apply([record_of(UpdateOrganization(org_id=o, name="Acme2")), record_of(DeleteOrganization(org_id=o)), record_of(RestoreOrganization(org_id=o)), record_of(UpdateOrganization(org_id=uuid4(), name="x"))])
    conn = await asyncpg.connect(settings.database.url.get_secret_value())
    for row in await conn.fetch("select * from journal"): print(dict(row))
    for row in await conn.fetch("select * from organization"): print(dict(row))
    await conn.close()
    await applier.stop()
