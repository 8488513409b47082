"""One service and one browser for all tests of the operators' page."""

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from org_service.settings import ConsoleSettings
from tests.support.browser import Visit, browsing, find_chromium, visiting
from tests.support.edge import People, Site
from tests.support.provider import CLIENT_ID, CLIENT_SECRET, Provider, providing
from tests.support.sites import running_site


@pytest.fixture(scope="package")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """Where people sign in."""
    with providing(People(tmp_path_factory.mktemp("issuer"))) as started:
        yield started


@pytest.fixture(scope="package")
def site(server_url: str, bootstrap_servers: str, template_database: str, provider: Provider) -> Iterator[Site]:
    """A running service with the operators' page. `root` is staff there."""
    console = ConsoleSettings.model_validate(
        {
            "enabled": True,
            "links": True,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "discovery_url": provider.discovery_url,
            "sample_interval_s": 1,
        }
    )
    with running_site(server_url, bootstrap_servers, template_database, provider.people, console=console) as started:
        yield started


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    """The browser, which every machine that runs these tests must have."""
    path = find_chromium()
    assert path is not None, "these tests need Debian's chromium: apt-get install chromium"
    async with browsing(path) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="package")
async def stranger(browser: Browser, site: Site) -> AsyncIterator[Visit]:
    """A window in which nobody is signed in."""
    async with visiting(browser, site) as visit:
        yield visit


@pytest_asyncio.fixture(loop_scope="package")
async def staff(stranger: Visit) -> Visit:
    """A window of `root`, who is staff."""
    await stranger.sign_in_as("root", secrets.token_hex(16))
    return stranger
