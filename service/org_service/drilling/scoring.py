"""Whether an incident is mended: what is judged of every drill, and what each adds.

`orgs verify` is the judge. Some faults leave what nobody can take back, a stranger's record on `orgs.events`, say: what
differed before a drill, and what a drill says that it leaves, doesn't count.
"""

from collections.abc import Collection, Sequence
from typing import Final

from org_service.drilling.drill import Drill, Facts, Ground, Mark
from org_service.drilling.looking import find_unready, look_for_differences
from org_service.local.roles import ROLES
from org_service.operate.progress import Behind, behind
from org_service.operate.verifying.report import Difference, Report, Verdict

_GOOD: Final = (Verdict.EQUAL, Verdict.INCOMPLETE, Verdict.DIFFERS)
"""Verdicts that leave the differences to judge; what retention took is no fault."""


def identify(difference: Difference) -> str:
    """What tells a difference from all others, from one verification to the next."""
    return " ".join(map(str, (difference.kind, difference.subject, difference.right)))


async def score(ground: Ground, drill: Drill, facts: Facts, before: Collection[str]) -> list[Mark]:
    """Judge whether a drill's incident is mended.

    Args:
        ground: Where it was planted.
        drill: Which one.
        facts: What its `plant` returned.
        before: What differed before it, as `identify` names it.
    """
    unready = await find_unready(ground, ROLES)
    marks = [Mark("all four roles run, and are ready", not unready, "; ".join(unready))]
    try:
        left = await behind(ground.settings)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the stack is what is judged
        return [*marks, Mark("Kafka and Postgres answer", ok=False, found=f"{type(error).__name__}: {error}")]
    marks.append(_judge_progress(left))
    marks.extend(await drill.judge(ground, facts))
    marks.append(judge_report(await look_for_differences(ground), [*before, *drill.leaves(facts)]))
    return marks


def _judge_progress(left: Behind) -> Mark:
    said = "" if left.idle else f"{left.commands} offsets are not decided, {left.outcomes} outcomes not published"
    return Mark("all that was sent is decided and published", left.idle, said)


def judge_report(report: Report, known: Sequence[str]) -> Mark:
    """Whether tables and topics tell the same, but for differences that are known."""
    others = [each for each in report.differences if identify(each) not in known]
    ok = report.verdict in _GOOD and not others
    said = f"{report.verdict} as of position {report.position:,}"
    if others:
        said += f": {len(others)} differences, the first: {others[0].kind} {others[0].subject}"
    elif report.verdict == Verdict.DIFFERS:
        said += ", only in what can't be taken back"
    elif report.verdict not in _GOOD:
        said += ": " + "; ".join(each.why for each in report.comparisons if each.why)
    return Mark("`orgs verify` finds that tables and topics tell the same", ok, said)
