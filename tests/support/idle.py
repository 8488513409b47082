"""To wait until everything that was sent is decided and published."""

from org_service.operate.progress import Behind, behind
from org_service.settings import Settings
from tests.support.waiting import until


async def wait_until_idle(settings: Settings, timeout_s: float) -> None:
    """Return when nothing is left to be done.

    Raises:
        TimeoutError: It isn't in time; the message says how much is left.
    """
    await until(lambda: behind(settings), Behind(0, 0), timeout_s)
