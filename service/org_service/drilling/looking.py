"""Looking where an operator looks: pages of health, metrics, and what became of commands."""

import asyncio
import json
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from prometheus_client.parser import text_string_to_metric_families

from org_service.drilling.drill import Ground, Sight
from org_service.local.roles import Standing
from org_service.operate.verifying.report import Kind, Report
from org_service.operate.verifying.verification import Asked, verify
from org_service.store import journal
from org_service.store.database import Database

ANSWER_S: Final = 3.0
"""For a page of this machine; each check behind it is bounded by less."""
RELAY_WAIT_S: Final = 2.0
"""For the relay to reach the position that is verified; a relay that is well is there by then."""
HISTORY_MAX: Final = 100
POLL_S: Final = 0.1
_NOT_OK: Final = "not ok: "


@dataclass(frozen=True)
class Check:
    """A check of `/readyz` of a role; its end, where the role has ended."""

    role: str
    name: str
    says: str
    """A regular expression, found anywhere in it."""
    alert: str | None = None

    async def look(self, ground: Ground) -> Sight | None:
        """As `Symptom.look`."""
        said = (await read_checks(ground, self.role)).get(self.name, "")
        return Sight(f"/readyz of {self.role}, {self.name}", said, self.alert) if re.search(self.says, said) else None


@dataclass(frozen=True)
class Ended:
    """A role that has ended by itself, as the last line of its log says."""

    role: str
    says: str
    alert: str | None = None

    async def look(self, ground: Ground) -> Sight | None:
        """As `Symptom.look`."""
        role = await find_role(ground, self.role)
        seen = role.state == "ended" and self.says in role.why
        return Sight(f"`orgs roles`, and the log of {self.role}", role.why, self.alert) if seen else None


@dataclass(frozen=True)
class Metric:
    """A metric between two bounds, both included."""

    role: str
    name: str
    alert: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    least: float = 1
    most: float = float("inf")

    async def look(self, ground: Ground) -> Sight | None:
        """As `Symptom.look`."""
        value = await read_metric(ground, self.role, self.name, dict(self.labels))
        if value is None or not self.least <= value <= self.most:
            return None
        inner = ",".join(f'{label}="{each}"' for label, each in self.labels)
        return Sight(f"{self.name}{{{inner}}}" if inner else self.name, f"{value:g}", self.alert)


@dataclass(frozen=True)
class Differs:
    """A difference that `orgs verify` finds."""

    kind: Kind
    alert: str | None = None

    async def look(self, ground: Ground) -> Sight | None:
        """As `Symptom.look`."""
        report = await look_for_differences(ground)
        found = next((each for each in report.differences if each.kind == self.kind), None)
        said = "" if found is None else f"{found.kind} {found.subject}: {found.left}, {found.right}"
        return None if found is None else Sight("`orgs verify`", said, self.alert)


@dataclass(frozen=True)
class Changed:
    """A change of an organization by somebody."""

    org_id: str
    actor: str
    event_type: str
    alert: str | None = None

    async def look(self, ground: Ground) -> Sight | None:
        """As `Symptom.look`."""
        async with Database(ground.settings.database, "reader", direct=True).connect() as conn:
            history = await journal.read_history(conn, UUID(self.org_id), HISTORY_MAX)
        found = [each for each in history if (each.actor, each.event_type) == (self.actor, self.event_type)]
        said = f"{self.event_type} by {self.actor} at version {found[-1].version}" if found else ""
        return Sight(f"`orgs history {self.org_id}`", said, self.alert) if found else None


async def look_for_differences(ground: Ground) -> Report:
    """Verify, in this process."""
    return await verify(ground.settings, Asked(processes=0, relay_wait_s=RELAY_WAIT_S))


async def find_role(ground: Ground, name: str) -> Standing:
    """How a role is."""
    return next(each for each in await ground.stack.roles() if each.role == name)


async def find_unready(ground: Ground, roles: Collection[str]) -> list[str]:
    """Which of these roles are not ready, and why."""
    found: list[str] = []
    for role in roles:
        checks = await read_checks(ground, role)
        wrong = [f"{name}: {each.removeprefix(_NOT_OK)}" for name, each in checks.items() if each.startswith(_NOT_OK)]
        if wrong or not checks:
            found.append(f"{role}: {', '.join(wrong) or (await find_role(ground, role)).state}")
    return found


async def wait_until_ready(ground: Ground, roles: Collection[str], timeout_s: float) -> list[str]:
    """Wait until roles are ready; returns those that aren't in time, and why."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        unready = await find_unready(ground, roles)
        if not unready or time.monotonic() >= deadline_s:
            return unready
        await asyncio.sleep(POLL_S)


async def read_checks(ground: Ground, role: str) -> Mapping[str, str]:
    """What each check of a role says, one that failed behind `not ok: `; nothing where no page answers."""
    answer = await _get(ground, role, "/readyz")
    if answer is None:
        return {}
    checks: dict[str, Any] = json.loads(answer).get("checks", {})
    return {name: ("" if each["ok"] else _NOT_OK) + each["detail"] for name, each in checks.items()}


async def read_metric(ground: Ground, role: str, name: str, labels: Mapping[str, str]) -> float | None:
    """The value of a series as a role shows it; None where there is none."""
    answer = await _get(ground, role, "/metrics")
    if answer is None:
        return None
    for family in text_string_to_metric_families(answer):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


async def _get(ground: Ground, role: str, path: str) -> str | None:
    url = (await find_role(ground, role)).url
    return await asyncio.to_thread(_fetch, url, path) if url else None


def _fetch(url: str, path: str) -> str | None:
    """A page, whatever its status; by the standard library, which loads no certificates for each look."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=ANSWER_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
