"""The commands of a measurement, encoded before the clock starts."""

import random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from org_events.cloudevents import command_headers
from org_events.commands import Command, CreateOrganization, UpdateOrganization

ORGANIZATIONS: Final = 10_000
COMMANDS: Final = 40_000

_ADDRESS: Final = {"line1": "Storgata 1", "line2": None, "city": "Oslo", "region": None, "postal_code": "0155"}
_KINDS: Final = 4
"""Two of four updates set the domain, one the address, one the name, which has a unique index to keep."""


class Encoded(NamedTuple):
    """A command as a Kafka record."""

    command_id: bytes
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def organization_ids(count: int) -> list[UUID]:
    """Always the same ids, so that another process knows them too."""
    numbers = random.Random(20)
    return [UUID(int=numbers.getrandbits(128), version=4) for _ in range(count)]


def creations(org_ids: Sequence[UUID], token: str | None = None) -> list[Encoded]:
    """One command each to create the organizations, by whoever has the token."""
    return [
        _encoded(CreateOrganization(org_id=org_id, **fields(number)), token) for number, org_id in enumerate(org_ids)
    ]


def fields(number: int) -> dict[str, Any]:
    """What an organization has in the beginning."""
    return {
        "name": f"Organization {number}",
        "domain": f"org{number}.example.com",
        "primary_address": {**_ADDRESS, "country": "NO"},
    }


def updates(org_ids: Sequence[UUID], count: int, run: int, tokens: Sequence[str] = ()) -> list[Encoded]:
    """Updates in random order, as many for each organization; each changes something, and all go through.

    Args:
        org_ids: Whom to update.
        count: How many updates in all.
        run: Tells this run's values from those of another.
        tokens: Each organization is updated by one of these users, always the same; nobody in particular if empty.
    """
    order = [number % len(org_ids) for number in range(count)]
    random.Random(run).shuffle(order)
    return [
        _encoded(_update(org_ids[place], number, run), tokens[place % len(tokens)] if tokens else None)
        for number, place in enumerate(order)
    ]


def _update(org_id: UUID, number: int, run: int) -> UpdateOrganization:
    match number % _KINDS:
        case 0:
            return UpdateOrganization(org_id=org_id, name=f"Organization {number} of run {run}")
        case 1:
            address: Any = {**_ADDRESS, "line1": f"Storgata {number}", "line2": f"Room {run}", "country": "SE"}
            return UpdateOrganization(org_id=org_id, primary_address=address)
        case _:
            return UpdateOrganization(org_id=org_id, domain=f"d{number}.run{run}.example.com")


def _encoded(command: Command, token: str | None = None) -> Encoded:
    command_id = uuid4()
    headers = command_headers(
        command_id=command_id,
        command_type=command.type,
        source="/bench",
        actor="bench" if token is None else None,
        authorization=None if token is None else f"Bearer {token}",
    )
    return Encoded(str(command_id).encode(), str(command.org_id).encode(), command.to_body(), headers)
