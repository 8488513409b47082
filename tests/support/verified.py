"""Whether tables and topics tell the same, for tests of other things."""

from org_service.operate.verifying.report import Difference, Verdict
from org_service.operate.verifying.verification import Asked, verify
from org_service.settings import Settings


async def find_differences(settings: Settings) -> list[Difference]:
    """What differs between tables and topics; everything could be told."""
    report = await verify(settings, Asked(processes=0))
    assert report.verdict in (Verdict.EQUAL, Verdict.DIFFERS), report.comparisons
    return report.differences
