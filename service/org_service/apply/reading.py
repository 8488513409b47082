"""Records are read one by one, and none keeps the others from being read."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import structlog

from org_service import probes
from org_service.domain.fold import describe_place
from org_service.domain.reasons import ParkReason
from org_service.domain.requests import Record, Unreadable
from org_service.telemetry.logs import log_defect

T = TypeVar("T")


def read_each(
    read: Callable[[Record], T], records: Iterable[Record], log: structlog.stdlib.BoundLogger
) -> Iterator[T | Unreadable]:
    """Read records in order; one on which our code raises is to be parked, and the log says where it raised.

    A generator costs less for each record than a function around `read`, which would be called by `map`.
    """
    for record in records:
        try:
            if probes.listeners:
                probes.notify("apply.before_read", record)
            yield read(record)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not hold up the other records
            defect = describe_place(error)
            log_defect(
                log,
                "record not read: our code raised",
                defect,
                error,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
            )
            yield Unreadable(record, defect, ParkReason.HANDLER_RAISED, error)
