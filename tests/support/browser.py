"""A real browser on the operators' page: Debian's chromium, driven by Playwright."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from org_service.console.requests import digest_of
from org_service.domain.reasons import TicketKind
from org_service.settings import Settings
from org_service.store import console
from org_service.store.database import Database
from tests.support.edge import Site

AXE = Path(__file__).parents[1] / "integration/console/axe/axe.min.js"
LAPTOP = {"width": 1360, "height": 850}
PHONE = {"width": 375, "height": 760}
TIMEOUT_MS = 15_000
SERIOUS = ("serious", "critical")

expect.set_options(timeout=TIMEOUT_MS)  # in place of 5 s, which a busy machine takes


def find_chromium() -> str | None:
    """Where the browser is, if it is installed."""
    return os.environ.get("ORGS_TEST_CHROMIUM") or shutil.which("chromium")


@asynccontextmanager
async def browsing(path: str) -> AsyncIterator[Browser]:
    """The browser."""
    async with async_playwright() as playwright:
        # Chromium's own sandbox can't be had as root; the pages are ours.
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


async def keep_session(settings: Settings, user: str, secret: str, ttl: timedelta = timedelta(hours=1)) -> None:
    """Make a session, as if somebody had signed in."""
    async with Database(settings.database, "operate", direct=True).begin() as conn:
        await console.add_ticket(conn, digest_of(secret), TicketKind.SESSION, user, ttl.total_seconds())


class Visit:
    """Somebody's window, and all that went wrong in it: what a browser complains about, a user never sees."""

    def __init__(self, site: Site, context: BrowserContext, page: Page) -> None:
        self.site = site
        self.context = context
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))

    async def open(self, path: str) -> Any:
        """Go to a page of the console."""
        return await self.page.goto(f"{self.site.url}/console{path}")

    async def sign_in_as(self, user: str, secret: str) -> None:
        """Have a session of one's own."""
        await keep_session(self.site.settings, user, secret)
        await self.context.add_cookies(
            [{"name": "orgs-console", "value": secret, "domain": "127.0.0.1", "path": "/console", "sameSite": "Lax"}]
        )

    async def find_violations(self) -> list[str]:
        """What axe-core finds, of what hinders people."""
        # As the browser's own tools do: the page's policy lets nobody else bring a script.
        session = await self.context.new_cdp_session(self.page)
        await session.send("Runtime.evaluate", {"expression": AXE.read_text()})
        await session.detach()
        found = await self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{each['id']} ({each['impact']}): {node['html']} {node['failureSummary']}"
            for each in found["violations"]
            if each["impact"] in SERIOUS
            for node in each["nodes"]
        ]

    async def is_scrolled_sideways(self) -> bool:
        """Whether the page is wider than the window."""
        return await self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


@asynccontextmanager
async def visiting(
    browser: Browser, site: Site, *, dark: bool = False, phone: bool = False, javascript: bool = True
) -> AsyncIterator[Visit]:
    """A window of its own, with nobody signed in."""
    context = await browser.new_context(
        color_scheme="dark" if dark else "light",
        viewport=PHONE if phone else LAPTOP,  # pyright: ignore[reportArgumentType] - a dict of its two members
        java_script_enabled=javascript,
    )
    context.set_default_timeout(TIMEOUT_MS)
    try:
        yield Visit(site, context, await context.new_page())
    finally:
        await context.close()
