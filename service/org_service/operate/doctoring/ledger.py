"""The ledger: each guarantee, what it stands on, and whether that holds."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from org_service.operate.doctoring import kafka, postgres
from org_service.operate.doctoring.facts import Facts
from org_service.operate.doctoring.findings import GUARANTEES, SEVERITY, Finding, Verdict, holds
from org_service.settings import Settings

_ALL = tuple(GUARANTEES)


class Entry(NamedTuple):
    """One guarantee."""

    guarantee: int
    text: str
    findings: Sequence[Finding]
    """The worst come first."""

    @property
    def verdict(self) -> Verdict:
        """That of the worst finding."""
        return self.findings[0].verdict


def judge(facts: Facts) -> list[Entry]:
    """Judge every guarantee by what the servers say. Pure."""
    findings = list(_judge(facts))
    return [
        Entry(
            number,
            text,
            sorted(
                (each for each in findings if number in each.guarantees),
                key=lambda each: -SEVERITY.index(each.verdict),
            ),
        )
        for number, text in GUARANTEES.items()
    ]


def _judge(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.postgres, str):
        yield Finding(_ALL, "Postgres", Verdict.UNKNOWN, facts.postgres, "see that it runs, and run this again")
    else:
        yield from postgres.judge(facts.postgres)
    if isinstance(facts.kafka, str):
        yield Finding(_ALL, "Kafka", Verdict.UNKNOWN, facts.kafka, "see that it runs, and run this again")
    else:
        yield from kafka.judge(facts.kafka, facts.settings)
    yield from _ours(facts.settings)


def _ours(settings: Settings) -> Iterator[Finding]:
    yield holds((1,), "deduplication", "by the journal, which keeps every command id: no window, no retention")
    yield holds((7,), "queues", f"at most {settings.worker.queued_commands_max:,} commands of one organization wait")
    if settings.worker.breaker:
        yield holds((10,), "ORGS_WORKER__BREAKER", "true")
    else:
        said = "false: what a bad release fails on is parked, with its organizations"
        yield Finding((10,), "ORGS_WORKER__BREAKER", Verdict.VOID, said, "remove it, and restart the workers")
    lease_s, above = settings.operate.lease_s, settings.operate.approval_above
    yield holds((9,), "plans and runs", f"leases of {lease_s:g} s; above {above:,} items a second person approves")
