"""How a partition is begun, by what the store and the log say."""

from uuid import uuid4

import pytest

from org_events.subscribing.lives import Log, Opening, Start, decide_opening, find_parent
from org_events.subscribing.stores import Mark

TOPIC = uuid4()
MARK = Mark(TOPIC, 50, loading=False, whole=True, partitions=1)
LOG = Log(TOPIC, 10, 90)


@pytest.mark.parametrize(
    ("mark", "log", "opening"),
    [
        (MARK, LOG, Opening.RESUME),
        (MARK._replace(offset=10), LOG, Opening.RESUME),
        (MARK._replace(offset=90), LOG, Opening.RESUME),
        (MARK._replace(offset=9), LOG, Opening.LOAD),
        (MARK._replace(offset=91), LOG, Opening.LOAD),
        (MARK._replace(topic_id=uuid4()), LOG, Opening.LOAD),
        (MARK._replace(loading=True), LOG, Opening.LOAD),
        (MARK, LOG._replace(cut=True), Opening.LOAD),
        (None, LOG, Opening.START),
    ],
)
def test_a_partition_continues_only_where_nothing_is_missing(mark: Mark | None, log: Log, opening: Opening) -> None:
    assert decide_opening(0, {} if mark is None else {0: mark}, log, "now") is opening


@pytest.mark.parametrize(("start", "opening"), [("state", Opening.LOAD), ("earliest", Opening.START)])
def test_a_fresh_subscriber_begins_as_it_was_told(start: Start, opening: Opening) -> None:
    assert decide_opening(3, {0: MARK._replace(partitions=12)}, LOG, start) is opening


def test_a_new_partition_waits_for_the_one_that_had_its_organizations() -> None:
    three = {number: MARK._replace(partitions=3) for number in range(3)}
    grown = three | {number: MARK._replace(partitions=6) for number in range(3, 6)}
    assert find_parent(4, three) == 1
    assert find_parent(10, grown) == 4
    assert find_parent(2, three) is None
    assert find_parent(4, {0: MARK._replace(partitions=3)}) is None, "nobody read its parent"
    assert decide_opening(4, three, Log(TOPIC, 0, 5), "state") is Opening.WAIT
    assert decide_opening(4, three, LOG, "state") is Opening.LOAD, "retention took its beginning"
