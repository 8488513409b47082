"""A large batch is split by partition: one part is decided while Postgres works for another. Pure."""

from collections.abc import Sequence
from typing import Final

from org_service.domain.requests import Record

_LANE_RECORDS_MIN: Final = 100
"""Fewer don't pay for a transaction of their own."""


def split_into_lanes(records: Sequence[Record], lanes: int) -> Sequence[tuple[Sequence[int], Sequence[Record]]]:
    """Part a batch by partition: what has an order keeps it, and one lane decides while Postgres works for another.

    Returns:
        Records, and the numbers of the lanes they enter: a small batch is one, and enters all.
    """
    if lanes == 1 or len(records) < _LANE_RECORDS_MIN * lanes:
        return [(range(lanes), records)]
    parted: list[list[Record]] = [[] for _ in range(lanes)]
    for record in records:
        parted[record.partition % lanes].append(record)
    return [((place,), lane) for place, lane in enumerate(parted) if lane]
