"""Verification again and again, in processes of the role `operate`.

In one process at a time, by a lock in Postgres; within a share of one processor, so that what it costs is known. What
differs is a metric and a log line each time, until it is repaired.
"""

import asyncio
import time
from contextlib import suppress
from typing import Final

from org_service.operate.verifying.report import Kind, Report, Verdict
from org_service.operate.verifying.verification import Asked, verify
from org_service.settings import Settings
from org_service.store.leader import LeaderLock
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import VERIFIED_DIFFERENCES, VERIFIED_ROUNDS, VERIFIED_SECONDS, VERIFIED_THROUGH
from org_service.waiting import Heartbeat, pause

log = get_logger(__name__)

LOGGED_MAX: Final = 20
"""Differences in the log, of one round."""


class ContinuousVerification:
    """Verifies, waits, and verifies again. `run` once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.last: Report | None = None
        """What the last round found."""
        for verdict in Verdict:
            VERIFIED_ROUNDS.labels(verdict)  # from 0 on, so that the first one is seen as an increase

    async def run(self, stop: asyncio.Event) -> None:
        """Verify until `stop`; an outage is a verdict, and our own defect a line in the log."""
        interval_s = self._settings.operate.verify_interval_s
        while interval_s and not stop.is_set():
            began_s = time.monotonic()
            with suppress(TimeoutError):
                await self._round()
            await pause(max(1.0, interval_s - (time.monotonic() - began_s)), stop, Heartbeat())

    async def _round(self) -> None:
        name = f"{self._settings.kafka.topic_prefix}verify"
        try:
            async with LeaderLock(self._settings.database, name) as lock:
                if not await lock.try_acquire():
                    return  # another process is at it
                share = self._settings.operate.verify_processor_share
                report = await verify(self._settings, Asked(share=share, processes=0))
        except Exception:  # the role's other work goes on
            log.exception("the verification failed")
            VERIFIED_ROUNDS.labels(Verdict.ERROR).inc()
            return
        self.last = report
        note(report)


def note(report: Report) -> None:
    """Show what a round found."""
    VERIFIED_ROUNDS.labels(report.verdict).inc()
    about = {
        "position": report.position,
        "seconds": round(report.seconds, 1),
        "processor_seconds": round(report.processor_seconds, 1),
    }
    worst = [f"{each.name}: {each.why}" for each in report.comparisons if each.verdict == report.verdict and each.why]
    if report.verdict in (Verdict.INCONCLUSIVE, Verdict.ERROR):
        log.warning("not verified", verdict=report.verdict, why=worst, **about)
        return
    VERIFIED_SECONDS.set(report.seconds)
    for kind in Kind:
        VERIFIED_DIFFERENCES.labels(kind).set(report.counts[kind])
    if report.verdict is not Verdict.DIFFERS:
        VERIFIED_THROUGH.set(report.position)
        log.info("verified", verdict=report.verdict, why=worst, **about)
        return
    log.error("tables and topics differ: `orgs verify` shows all", counts=dict(report.counts), **about)
    for each in report.differences[:LOGGED_MAX]:
        # Neither value: they may be personal.
        log.error(
            "a difference",
            kind=each.kind,
            subject=each.subject,
            sources=[each.left, each.right],
            field=each.field,
            position=each.position,
            remedy=each.remedy,
        )
