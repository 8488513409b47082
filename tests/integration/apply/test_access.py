"""The worker as judge, on a real Postgres with real tokens: who gets what, and as of when."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from org_events.cloudevents import command_headers
from org_events.commands import Command, CreateOrganization, DeleteOrganization, RestoreOrganization, UpdateOrganization
from org_local.issuer import Issuer
from org_service.apply import authenticator
from org_service.apply.applier import Applier
from org_service.settings import AuthSettings, Settings
from tests.support.appliers import applying
from tests.support.records import FakeRecord

pytestmark = pytest.mark.integration

Send = Callable[..., FakeRecord]
HOUR_S = 3_600


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer.open(tmp_path_factory.mktemp("issuer"))


@pytest.fixture
def guarded(settings: Settings, issuer: Issuer) -> Settings:
    auth = AuthSettings(commands="tokens", issuer=issuer.name, jwks_file=str(issuer.jwks_file))
    return settings.model_copy(update={"auth": auth})


@pytest.fixture
async def applier(guarded: Settings) -> AsyncIterator[Applier]:
    async with applying(guarded) as made:
        yield made


@pytest.fixture
async def database(database: asyncpg.Connection) -> asyncpg.Connection:
    """Somebody is staff."""
    await database.execute("INSERT INTO staff VALUES ('staff')")
    return database


def sent(
    command: Command, token: str | None, *, actor: str | None = None, command_id: UUID | None = None
) -> FakeRecord:
    headers = command_headers(
        command_id=command_id or uuid4(),
        command_type=command.type,
        source="/tests",
        actor=actor,
        authorization=None if token is None else f"Bearer {token}",
    )
    return FakeRecord(str(command.org_id).encode(), command.to_body(), headers)


async def join(database: asyncpg.Connection, user: str, org_id: UUID, role: str, active: bool = True) -> None:
    await database.execute(
        "INSERT INTO membership VALUES ($1, $2, $3, $4, $5)", user, org_id, role, datetime.now(UTC), active
    )


async def outcomes(database: asyncpg.Connection) -> list[Any]:
    return await database.fetch("SELECT * FROM journal ORDER BY position")


async def test_every_caller_gets_what_their_role_allows(
    applier: Applier, database: asyncpg.Connection, issuer: Issuer
) -> None:
    org_id = uuid4()
    for user, role in (("ann", "admin"), ("bob", "user")):
        await join(database, user, org_id, role)
    await join(database, "carl", org_id, "admin", active=False)
    rename = UpdateOrganization(org_id=org_id, name="Acme Norge")
    missing = UpdateOrganization(org_id=uuid4(), name="Acme Norge")
    tokens = {user: issuer.token(user) for user in ("staff", "ann", "bob", "carl")}
    await applier.apply(
        [
            sent(CreateOrganization(org_id=org_id, name="Acme"), tokens["staff"]),
            sent(CreateOrganization(org_id=uuid4(), name="Globex"), tokens["ann"]),
            sent(rename, tokens["ann"], actor="mallory"),
            sent(rename, tokens["bob"]),
            sent(rename, tokens["carl"]),
            sent(missing, tokens["carl"]),
            sent(rename, None, actor="mallory"),
        ]
    )
    rows = await outcomes(database)
    assert [(row["code"], row["actor"], row["version"]) for row in rows] == [
        (200, "staff", 1),
        (403, "ann", None),
        (200, "ann", 2),
        (403, "bob", 2),
        (404, "carl", None),
        (404, "carl", None),
        (401, None, None),
    ]
    assert rows[4]["problem"] == rows[5]["problem"]
    assert orjson.loads(rows[6]["problem"])["detail"] == authenticator.NO_TOKEN


async def test_a_token_is_judged_as_of_the_moment_the_broker_took_the_record(
    applier: Applier, database: asyncpg.Connection, issuer: Issuer
) -> None:
    now = int(time.time())
    command = CreateOrganization(org_id=uuid4(), name="Acme")
    token = issuer.token("staff", ttl_s=60, issued_s=now - HOUR_S)  # good for a minute, an hour ago
    replayed = replace(sent(command, token), timestamp=(now - HOUR_S + 30) * 1000)
    late = replace(sent(command, token), timestamp=now * 1000)
    early = replace(sent(command, token), timestamp=(now - 2 * HOUR_S) * 1000)
    await applier.apply([replayed, late, early])
    assert [row["code"] for row in await outcomes(database)] == [200, 401, 401]


async def test_a_token_is_rejected_where_the_publisher_chose_the_time_of_the_record(
    applier: Applier, database: asyncpg.Connection, issuer: Issuer
) -> None:
    """Somebody switched the topic to CreateTime: an old token could be dated back to when it was good."""
    now = int(time.time())
    token = issuer.token("staff", ttl_s=60, issued_s=now - HOUR_S)
    command = CreateOrganization(org_id=uuid4(), name="Acme")
    dated_back = replace(sent(command, token), timestamp=(now - HOUR_S + 30) * 1000, timestamp_type=0)
    await applier.apply([dated_back])
    [row] = await outcomes(database)
    assert row["code"] == 401
    assert "LogAppendTime" in orjson.loads(row["problem"])["detail"]


async def test_a_retry_with_a_fresh_token_is_the_same_command(
    applier: Applier, database: asyncpg.Connection, issuer: Issuer
) -> None:
    command, command_id = CreateOrganization(org_id=uuid4(), name="Acme"), uuid4()
    for ttl_s in (60, 120):
        await applier.apply([sent(command, issuer.token("staff", ttl_s=ttl_s), command_id=command_id)])
    assert [row["code"] for row in await outcomes(database)] == [200]


async def test_a_membership_that_is_gone_counts_from_the_next_batch_on(
    applier: Applier, database: asyncpg.Connection, issuer: Issuer
) -> None:
    org_id, ann = uuid4(), issuer.token("ann")
    await join(database, "ann", org_id, "admin")
    await applier.apply([sent(CreateOrganization(org_id=org_id, name="Acme"), issuer.token("staff"))])
    await applier.apply([sent(UpdateOrganization(org_id=org_id, domain="acme.com"), ann)])
    await database.execute("DELETE FROM membership")
    await applier.apply([sent(UpdateOrganization(org_id=org_id, domain=None), ann)])
    assert [row["code"] for row in await outcomes(database)] == [200, 200, 404]


async def test_members_of_a_partner_have_its_role_as_long_as_it_is_active(
    applier: Applier, database: asyncpg.Connection, issuer: Issuer
) -> None:
    client, partner, staff, rep = uuid4(), uuid4(), issuer.token("staff"), issuer.token("rep")
    await join(database, "rep", partner, "user")
    await database.execute("INSERT INTO partnership VALUES ($1, $2, 'cloud_rep')", partner, client)
    await applier.apply([sent(CreateOrganization(org_id=org, name=f"Org {org}"), staff) for org in (client, partner)])
    await applier.apply(
        [
            sent(UpdateOrganization(org_id=client, domain="acme.com"), rep),
            sent(DeleteOrganization(org_id=client), rep),
            sent(DeleteOrganization(org_id=partner), staff),
        ]
    )
    await database.execute("UPDATE organization SET deactivated_at = now() WHERE id = $1", partner)
    await applier.apply([sent(UpdateOrganization(org_id=client, domain=None), rep)])
    rows = await outcomes(database)
    assert [row["code"] for row in rows[2:]] == [200, 403, 409, 404]
    assert orjson.loads(rows[4]["problem"])["type"] == "urn:orgs:problem:still-partner"


async def test_a_partner_may_be_deleted_after_its_last_client_in_the_same_batch(
    applier: Applier, database: asyncpg.Connection, issuer: Issuer
) -> None:
    client, partner, staff = uuid4(), uuid4(), issuer.token("staff")
    await database.execute("INSERT INTO partnership VALUES ($1, $2, 'cloud_rep')", partner, client)
    await applier.apply(
        [sent(CreateOrganization(org_id=org, name=f"Org {org}"), staff) for org in (client, partner)]
        + [sent(DeleteOrganization(org_id=org), staff) for org in (client, partner)]
    )
    assert [row["code"] for row in await outcomes(database)] == [200] * 4


async def test_staff_may_change_deactivated_and_deleted_organizations(
    applier: Applier, database: asyncpg.Connection, issuer: Issuer
) -> None:
    org_id, staff, ann = uuid4(), issuer.token("staff"), issuer.token("ann")
    await join(database, "ann", org_id, "admin")
    await applier.apply([sent(CreateOrganization(org_id=org_id, name="Acme"), staff)])
    await database.execute("UPDATE organization SET deactivated_at = now()")
    await applier.apply(
        [
            sent(UpdateOrganization(org_id=org_id, domain=domain), token)
            for domain, token in (("a.no", ann), ("b.no", staff))
        ]
        + [sent(DeleteOrganization(org_id=org_id), ann)]
        + [sent(RestoreOrganization(org_id=org_id), token) for token in (ann, staff)]
    )
    assert [row["code"] for row in await outcomes(database)] == [200, 409, 200, 200, 404, 200]


async def test_a_token_is_verified_even_where_publishers_are_trusted(
    guarded: Settings, database: asyncpg.Connection, issuer: Issuer
) -> None:
    org_id = uuid4()
    trusting = guarded.auth.model_copy(update={"commands": "trusted"})
    records = [
        sent(CreateOrganization(org_id=org_id, name="Acme"), None, actor="crm"),
        sent(UpdateOrganization(org_id=org_id, domain="acme.com"), issuer.token("nobody"), actor="crm"),
        sent(UpdateOrganization(org_id=org_id, domain="acme.com"), "garbage", actor="crm"),
    ]
    for auth in (trusting, AuthSettings(commands="trusted")):
        async with applying(guarded.model_copy(update={"auth": auth})) as applier:
            await applier.apply([replace(record, headers=with_new_id(record)) for record in records])
    assert [(row["code"], row["actor"]) for row in await outcomes(database)] == [
        (200, "crm"), (404, "nobody"), (401, None),
        (409, "crm"), (401, None), (401, None),
    ]  # fmt: skip


async def test_a_held_organization_is_hidden_from_others_and_its_queue_is_bounded(
    guarded: Settings, database: asyncpg.Connection, issuer: Issuer
) -> None:
    org_id = uuid4()
    await join(database, "ann", org_id, "admin")
    await join(database, "bob", org_id, "user")
    worker = guarded.worker.model_copy(update={"queued_commands_max": 3})
    async with applying(guarded.model_copy(update={"worker": worker})) as applier:
        await database.execute(
            "ALTER TABLE organization ADD CONSTRAINT no_poison CHECK (domain <> 'poison.com') NOT VALID"
        )
        ann, bob, mallory = (issuer.token(user) for user in ("ann", "bob", "mallory"))
        change = UpdateOrganization(org_id=org_id, name="Acme Norge")
        await applier.apply([sent(CreateOrganization(org_id=org_id, name="Acme"), issuer.token("staff"))])
        await applier.apply([sent(UpdateOrganization(org_id=org_id, domain="poison.com"), ann)])
        await applier.apply([sent(change, mallory), sent(change, ann), sent(change, bob)])
        await applier.apply([sent(change, token) for token in (mallory, ann, ann, mallory)])
    rows = [(row["actor"], row["code"], row["version"]) for row in await outcomes(database)]
    assert rows[1:] == [
        ("mallory", 404, None), ("bob", 403, 1), ("mallory", 404, None), ("ann", 409, 1), ("mallory", 404, None),
    ]  # fmt: skip
    assert [row["reason"] for row in await database.fetch("SELECT reason FROM parked ORDER BY id")] == [
        "data_refused", "queued_behind", "queued_behind",
    ]  # fmt: skip


async def test_an_unverified_user_is_never_recorded(
    settings: Settings, guarded: Settings, database: asyncpg.Connection, issuer: Issuer
) -> None:
    """In the journal, where operators look for who did it."""
    org_id, forged = uuid4(), issuer.token("staff")[:-9] + "forged-it"
    create = sent(CreateOrganization(org_id=org_id, name="Acme"), None, actor="mallory")
    async with applying(settings) as trusting:
        await trusting.apply(
            [
                replace(create, headers=[*with_new_id(create), ("Authorization", f"Bearer {forged}".encode())]),
                replace(create, headers=[*with_new_id(create), ("authorization", None)]),
            ]
        )
    async with applying(guarded) as applier:
        two = [("authorization", f"Bearer {issuer.token(user)}".encode()) for user in ("staff", "ann")]
        await applier.apply(
            [
                replace(create, headers=with_new_id(create), value=b"{"),
                replace(create, headers=[*with_new_id(create), *two]),
                replace(create, headers=[*with_new_id(create), (two[0][0].title(), two[0][1])]),
            ]
        )
    rows = [(row["code"], row["actor"]) for row in await outcomes(database)]
    assert rows == [(401, None), (401, None), (400, None), (400, None), (200, "staff")]


def with_new_id(record: FakeRecord) -> list[tuple[str, bytes | None]]:
    return [(name, str(uuid4()).encode() if name == "ce_id" else value) for name, value in record.headers]
