"""What an erasure shall leave nowhere, and looking for it everywhere."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from org_service.settings import Settings
from tests.support.database import connected
from tests.support.relaying import applied, journal, org

NAME = "Kanarifugl & Sønner"
DOMAIN = "kanarifugl.example"
STREET = "Kanarigata 17"
CONTACT = "kari@kanarifugl-post.example"
ADDRESS = {"line1": STREET, "line2": "Kanarigården", "city": "Kanaribyen", "country": "NO"}
CANARY = "kanari"
"""In each of them, in some case of letters."""
DELETED_AT = datetime.now(UTC) - timedelta(days=31)


def at_once(settings: Settings) -> Settings:
    """Without a grace."""
    return settings.model_copy(update={"operate": settings.operate.model_copy(update={"erase_grace_days": 0})})


def holds_canary(content: bytes) -> bool:
    """Whether something of it is there, as it is, in hex or in Base64."""
    lower = content.lower()
    forms = {CANARY.encode(), CANARY.encode().hex().encode(), CANARY.title().encode().hex().encode()}
    encoded = {
        base64.b64encode(b"\0" * lead + word)[4 if lead else 0 : -4]
        for lead in range(3)
        for word in (CANARY.encode(), CANARY.title().encode())
    }
    return any(form in lower for form in forms) or any(form in content for form in encoded)


async def find_canary(settings: Settings) -> dict[str, int]:
    """Every row of every table that has something of it in any column: how many, by table."""
    found: dict[str, int] = {}
    async with connected(settings) as connection:
        tables = await connection.fetch(
            "SELECT oid::regclass::text AS name FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        for (table,) in tables:
            rows = await connection.fetch(f"SELECT t::text AS row FROM {table} AS t")
            if hits := sum(holds_canary(row["row"].encode()) for row in rows):
                found[table] = hits
    return found


async def add_deleted(settings: Settings, count: int, *, deleted_at: datetime = DELETED_AT) -> list[UUID]:
    """Organizations that were created and deleted, as if workers had done it."""
    org_ids = [org(number) for number in range(count)]
    rows: list[dict[str, Any]] = []
    for number, org_id in enumerate(org_ids):
        made = json.dumps({"id": str(org_id), "name": f"Kanari {number}", "domain": DOMAIN, "primary_address": ADDRESS})
        rows += (
            applied(org_id, 1, event_type="org.created", before=None, after=made, actor=CONTACT),
            applied(org_id, 2, event_type="org.deleted", before=made, after=None, actor=CONTACT),
        )
    await journal(settings, rows)
    async with connected(settings) as connection:
        await connection.executemany(
            "INSERT INTO organization (id, name, domain, primary_address, created_at, updated_at, deleted_at, version) "
            "VALUES ($1, $2, $3, $4, $5, $5, $5, 2)",
            [
                (org_id, f"Kanari {number}", DOMAIN, json.dumps(ADDRESS), deleted_at)
                for number, org_id in enumerate(org_ids)
            ],
        )
    return org_ids


async def histories(settings: Settings, org_ids: Sequence[UUID]) -> list[list[tuple[int, str]]]:
    """Of each organization, its versions and events in the journal."""
    async with connected(settings) as connection:
        rows = await connection.fetch(
            "SELECT org_id, version, event_type FROM journal WHERE event_type IS NOT NULL ORDER BY position"
        )
    by_id: dict[str, list[tuple[int, str]]] = {str(org_id): [] for org_id in org_ids}
    for row in rows:
        by_id[str(row["org_id"])].append((row["version"], row["event_type"]))
    return list(by_id.values())
