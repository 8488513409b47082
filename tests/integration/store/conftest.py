"""Databases of their own for the tests of the store: an empty one, or a migrated one."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from org_events.reference import Role
from org_service.domain.policy import ACTIONS, Policy
from org_service.settings import DatabaseSettings
from org_service.store.engine import Session, connect, create_engine

POLICY = Policy({role: (ACTIONS[place],) for place, role in enumerate(Role)})
"""Another action denied to each role, so that it can't be mistaken."""
CreateDatabase = Callable[..., Awaitable[DatabaseSettings]]
CreateLogin = Callable[..., Awaitable[DatabaseSettings]]


@pytest.fixture
async def server(server_url: str) -> AsyncIterator[Session]:
    """A superuser's session in the maintenance database."""
    session = await asyncpg.connect(server_url)
    yield session
    await session.close()


@pytest.fixture
async def create_login(server: Session) -> AsyncIterator[CreateLogin]:
    """Makes logins: `await create_login(database, "CREATEROLE")` is the database as a new login that isn't superuser.

    Dropped at the end, after the databases.
    """
    names: list[str] = []

    async def create(database: DatabaseSettings, options: str = "") -> DatabaseSettings:
        name = f"org_test_{secrets.token_hex(4)}"
        await server.execute(f"CREATE ROLE {name} LOGIN NOSUPERUSER {options}")
        names.append(name)
        url = database.url.get_secret_value().replace("//postgres@", f"//{name}@", 1)
        return database.model_copy(update={"url": SecretStr(url)})

    yield create
    for name in names:
        await server.execute(f"DROP ROLE {name}")


@pytest.fixture
async def create_database(server: Session, server_url: str, create_login: CreateLogin) -> AsyncIterator[CreateDatabase]:
    """Makes databases, which are dropped at the end: `await create_database(template="…", **settings)`."""
    names: list[str] = []

    async def create(template: str | None = None, **settings: object) -> DatabaseSettings:
        name = f"org_test_{secrets.token_hex(4)}"
        copied = "" if template is None else f" TEMPLATE {template}"
        await server.execute(f"CREATE DATABASE {name}{copied}")
        names.append(name)
        url = SecretStr(f"{server_url.rpartition('/')[0]}/{name}")
        return DatabaseSettings.model_validate({"url": url, **settings})

    yield create
    for name in names:
        await server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
async def empty_database(create_database: CreateDatabase) -> DatabaseSettings:
    """A database without tables."""
    return await create_database()


@pytest.fixture
async def database(create_database: CreateDatabase, template_database: str) -> DatabaseSettings:
    """A migrated database."""
    return await create_database(template=template_database)


@pytest.fixture
async def admin(database: DatabaseSettings) -> AsyncIterator[Session]:
    """A superuser's session in the migrated database."""
    session = await connect(database, None)
    yield session
    await session.close()


@pytest.fixture
async def edge(database: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """A connection of the edge, with its rights and no more."""
    engine = create_engine(database, "edge").execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as conn:
        yield conn
    await engine.dispose()
