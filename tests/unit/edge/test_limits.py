"""How often, how much, how many."""

import pytest

from org_service.edge.http.limits import Buckets, Disconnected, read_body
from org_service.edge.http.problems import ProblemError


def test_a_burst_goes_through_and_then_the_rate_counts() -> None:
    buckets = Buckets(rate_per_s=2, burst=3)
    assert [buckets.take("ann", 100.0) for _ in range(4)] == [0, 0, 0, 1]
    assert buckets.take("ann", 100.5) == 0
    assert buckets.take("ann", 100.5) == 1


def test_the_wait_is_in_whole_seconds_and_long_enough() -> None:
    buckets = Buckets(rate_per_s=0.25, burst=1)
    assert buckets.take("ann", 0.0) == 0
    assert buckets.take("ann", 0.0) == 4
    assert buckets.take("ann", 3.9) == 1
    assert buckets.take("ann", 4.9) == 0


def test_a_bucket_never_holds_more_than_the_burst() -> None:
    buckets = Buckets(rate_per_s=10, burst=2)
    assert [buckets.take("ann", at) for at in (0.0, 1000.0, 1000.0, 1000.0)] == [0, 0, 0, 1]


def test_one_actor_is_not_slowed_down_by_another() -> None:
    buckets = Buckets(rate_per_s=1, burst=1)
    assert (buckets.take("ann", 0.0), buckets.take("bob", 0.0), buckets.take("ann", 0.0)) == (0, 0, 1)


def test_the_number_of_buckets_is_bounded_and_the_least_recently_used_goes_first() -> None:
    buckets = Buckets(rate_per_s=0.001, burst=1, actors_max=2)
    for actor in ("ann", "bob", "cyd"):
        assert buckets.take(actor, 0.0) == 0
    assert len(buckets) == 2
    assert buckets.take("cyd", 0.0) > 0
    assert buckets.take("ann", 0.0) == 0


class Incoming:
    """A request's body in parts."""

    def __init__(self, *parts: bytes, whole: bool = True) -> None:
        self.parts = list(parts)
        self.taken = 0
        self._whole = whole

    async def __call__(self) -> dict[str, object]:
        if self.taken == len(self.parts):
            return {"type": "http.disconnect"}
        self.taken += 1
        more = self.taken < len(self.parts) or not self._whole
        return {"type": "http.request", "body": self.parts[self.taken - 1], "more_body": more}


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    assert await read_body(Incoming(b"ab", b"cd"), None, 4) == b"abcd"


async def test_a_body_without_a_length_is_rejected_as_soon_as_it_is_too_large() -> None:
    incoming = Incoming(b"abc", b"de", b"fgh")
    with pytest.raises(ProblemError) as rejected:
        await read_body(incoming, None, 4)
    assert rejected.value.status == 413
    assert incoming.taken == 2


async def test_a_body_that_says_it_is_too_large_is_not_read_at_all() -> None:
    incoming = Incoming(b"abcde")
    with pytest.raises(ProblemError) as rejected:
        await read_body(incoming, 5, 4)
    assert rejected.value.status == 413
    assert incoming.taken == 0


async def test_a_client_that_goes_away_in_the_middle_is_not_answered() -> None:
    with pytest.raises(Disconnected):
        await read_body(Incoming(b"ab", whole=False), 4, 4)
