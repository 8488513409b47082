"""A release of the worker that raises on everything: it parks nothing, and leaves the commands to others."""

from collections.abc import Sequence

from org_service.drilling.acting import apply, creations, judge_commands, leave, publisher
from org_service.drilling.builds import BAD
from org_service.drilling.drill import Drill, Facts, Ground, Mark, Symptom
from org_service.drilling.looking import Check, Metric, find_role
from org_service.local.roles import CURRENT


class BadRelease(Drill):
    """It went out to all workers."""

    name = "bad-release"
    call = "Publishers report that no outcome comes any more, since the deployment a minute ago."
    runbook = "a-bad-release-went-out"

    async def plant(self, ground: Ground) -> Facts:
        """As `Drill.plant`."""
        async with publisher(ground.settings) as client:
            await apply(client, creations(3, "Before"))
            await ground.stack.deploy(["worker"], BAD)
            return {"commands": await leave(client, creations(10, "Waiting"))}

    def symptoms(self, facts: Facts) -> Sequence[Symptom]:
        """As `Drill.symptoms`."""
        return [
            Check("worker", "breaker", "commands are left to other workers: "),
            Metric("worker", "orgs_worker_breaker_open", "OrgsBreakerOpen"),
        ]

    def remedy(self, facts: Facts) -> Sequence[str]:
        """As `Drill.remedy`."""
        return ["orgs status", "orgs roles deploy worker"]

    async def judge(self, ground: Ground, facts: Facts) -> Sequence[Mark]:
        """As `Drill.judge`."""
        release = (await find_role(ground, "worker")).release
        rolled_back = Mark("another release runs than the bad one", release == CURRENT, release)
        return [rolled_back, await judge_commands(ground, facts["commands"])]
