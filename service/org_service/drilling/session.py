"""A drill under way, from its planting to its score: what is remembered between one command and the next.

One at a time, because two faults hide each other. What is remembered is a file beside `stack.env`; where it is lost,
only the score is.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from org_service.drilling.acting import SETTLE_S, until
from org_service.drilling.drill import Drill, Facts, Ground, Mark, Sight
from org_service.drilling.looking import POLL_S, find_unready, look_for_differences
from org_service.drilling.scoring import identify, score
from org_service.errors import BadInputError, PreconditionError
from org_service.local.roles import ROLES
from org_service.operate.progress import behind
from org_service.operate.verifying.report import REPAIRED

FILE_NAME: Final = "drill.json"
SYMPTOMS_S: Final = 60.0
"""For all symptoms to show, on a very busy machine; some take seconds."""


@dataclass(frozen=True)
class Planted:
    """A drill that is under way."""

    name: str
    planted_at: str
    facts: Facts
    before: Sequence[str]
    """What differed before, as `scoring.identify` names it."""


def find(folder: Path) -> Planted | None:
    """The drill that is under way.

    Raises:
        BadInputError: The file that says so can't be read.
    """
    path = folder / FILE_NAME
    try:
        said: Mapping[str, Any] = json.loads(path.read_text())
        return Planted(**said)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise BadInputError(f"{path} is damaged; remove it, and the drill is forgotten.") from error


async def plant(ground: Ground, folder: Path, drill: Drill) -> tuple[Planted, list[Sight]]:
    """Plant a drill and wait until it shows everywhere.

    Raises:
        PreconditionError: Something is wrong already, or another drill is under way: nothing was planted. Or it does
            not show as it should.
    """
    under_way = find(folder)
    if under_way is not None:
        raise PreconditionError(
            f"{under_way.name} is under way since {under_way.planted_at}: finish it (`orgs drill {under_way.name}`), "
            f"or give it up (`orgs drill {under_way.name} --forget`). Nothing was planted."
        )
    before = await _find_known_differences(ground)
    facts = await drill.plant(ground)
    planted = Planted(drill.name, datetime.now(UTC).isoformat(timespec="seconds"), facts, before)
    (folder / FILE_NAME).write_text(json.dumps(asdict(planted)))
    return planted, await _wait_for_symptoms(ground, drill, facts)


async def look(ground: Ground, drill: Drill, facts: Facts) -> list[Sight]:
    """What shows now, of a drill's symptoms."""
    seen = [await symptom.look(ground) for symptom in drill.symptoms(facts)]
    return [each for each in seen if each is not None]


async def judge(ground: Ground, folder: Path, drill: Drill, planted: Planted, wait_s: float) -> list[Mark]:
    """Judge until it is mended, for so long at most; a drill that passes is over."""
    deadline_s = time.monotonic() + wait_s
    while True:
        marks = await score(ground, drill, planted.facts, planted.before)
        if all(each.ok for each in marks):
            forget(folder)
            return marks
        if time.monotonic() >= deadline_s:
            return marks
        await asyncio.sleep(POLL_S)


def forget(folder: Path) -> None:
    """Let another drill begin; what this one planted stays as it is."""
    (folder / FILE_NAME).unlink(missing_ok=True)


async def _find_known_differences(ground: Ground) -> list[str]:
    """What differs already, and can't be taken back.

    Raises:
        PreconditionError: Something is wrong that can be mended: then it would be the drill's.
    """

    async def is_well() -> bool:
        return not await find_unready(ground, ROLES) and (await behind(ground.settings)).idle

    await until(is_well, SETTLE_S, "nothing was planted, because the stack is not well: a role is not ready, or behind")
    report = await look_for_differences(ground)
    if any(each.kind in REPAIRED for each in report.differences):
        raise PreconditionError("tables and topics differ already: `orgs repair` mends it. Nothing was planted.")
    return [identify(each) for each in report.differences]


async def _wait_for_symptoms(ground: Ground, drill: Drill, facts: Facts) -> list[Sight]:
    seen: list[Sight] = []

    async def all_show() -> bool:
        seen[:] = await look(ground, drill, facts)
        return len(seen) == len(drill.symptoms(facts))

    await until(all_show, SYMPTOMS_S, f"{drill.name} is planted, and does not show everywhere")
    return seen
