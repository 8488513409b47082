"""Logs never hold a payload: ids, counts, coordinates, and of an exception its type and way only."""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, Final, TextIO, cast

import structlog

from org_service.settings import LogSettings

_FRAMES_MAX: Final = 8
"""Of an exception's way, the innermost: enough to find the place, few enough to read."""
_DEFECTS: Final[dict[str, int]] = {}
"""How often each defect of ours was met by this process."""
_DEFECTS_MAX: Final = 1_000
"""Places in our code where something can raise; so many never do."""


def set_up_logging(settings: LogSettings) -> None:
    """Send structlog and the standard library's loggers to standard error in one form.

    May be called again; the last call counts.
    """
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if console else "iso", utc=True),
        _exception_without_message,
        _event_first,
    ]
    last: list[Any] = [
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else structlog.processors.JSONRenderer()
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # a later set-up counts for loggers that were used before, too
    )
    handler = _StandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("aiokafka", "alembic", "asyncio", "httpx2", "mcp"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    # On a new cluster it reports an error a tenth of a second until the group's topic is there; "partitions assigned"
    # and /readyz tell whether the group works.
    logging.getLogger("aiokafka.consumer.group_coordinator").setLevel(logging.CRITICAL)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at the moment, not to what was when logging was set up."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # pyright: ignore[reportIncompatibleVariableOverride] - as logging.lastResort does it
        return sys.stderr


def _exception_without_message(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Show an exception by its type and the way it came: its message, and local variables, may quote a payload."""
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()[1]
    elif isinstance(raised, tuple):
        raised = cast("tuple[Any, BaseException | None, Any]", raised)[1]
    if isinstance(raised, BaseException):
        frames = "".join(traceback.format_tb(raised.__traceback__, limit=-_FRAMES_MAX))
        event["exception"] = f"{frames}{type(raised).__module__}.{type(raised).__qualname__}"
    return event


def _event_first(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """When, how bad and what, before the details: JSON lines are read by people too."""
    first = {name: event[name] for name in ("timestamp", "level", "event", "logger") if name in event}
    return {**first, **event}


def log_defect(log: structlog.stdlib.BoundLogger, event: str, defect: str, error: Exception, **details: Any) -> None:
    """Log what a defect of ours did to a record: the first time with its traceback, then at each power of ten.

    A defect that meets every command would else fill the disk with one traceback a command.

    Args:
        log: Of the caller.
        event: The outcome of the record.
        defect: Its type and place, the same each time.
        error: As it was raised.
        details: Of the record.
    """
    times = _DEFECTS[defect] = _DEFECTS.get(defect, 0) + 1
    if times == 1:
        log.error(event, defect=defect, exc_info=error, **details)
    elif 10 ** (len(str(times)) - 1) == times:
        log.error(event, defect=defect, times=times, last=details)
    if len(_DEFECTS) > _DEFECTS_MAX:
        _DEFECTS.clear()


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that takes key-value pairs: `log.info("batch applied", records=1000)`."""
    return structlog.stdlib.get_logger(name)
