"""What the tests of the pages have to look at: organizations with a past, and records that are parked."""

import asyncio
import secrets
from uuid import UUID, uuid4

from org_events.commands import CreateOrganization
from tests.integration.operate.parking import apply, failing_for, record, renamed
from tests.support.edge import Site

HOSTILE = "<script>alert(1)</script> \"'><img src=x onerror=alert(2)> {{ 7 * 7 }}"
"""A name that says something to HTML and to a template."""


def unique(name: str) -> str:
    """A name that no other test has."""
    return f"{name} {secrets.token_hex(3)}"


async def create(site: Site, name: str, *later: str) -> str:
    """An organization with that name, and then with these; its id."""

    def change() -> str:
        org_id = site.create(name, domain=f"d{secrets.token_hex(4)}.example")
        with site.client("root") as root:
            for each in later:
                assert root.patch(f"/v1/orgs/{org_id}", json={"name": each}).status_code == 200
        return org_id

    return await asyncio.to_thread(change)


async def park(site: Site, name: str, *waiting: str) -> UUID:
    """An organization whose create is parked, and renames that wait behind it."""
    org_id = uuid4()
    commands = [CreateOrganization(org_id=org_id, name=name), *renamed(org_id, *waiting)]
    with failing_for([org_id]):
        await apply(site.settings, *(record(site.settings, each) for each in commands))
    return org_id
