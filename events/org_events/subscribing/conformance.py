"""What any store must do, as checks to run against one's own: each is an async function whose name is a claim.

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_store(check: Check) -> None:
        await check(lambda subscriber: MyStore(database, subscriber))

Each check takes subscribers' names of its own, so all may run on one database, which must be durable between two stores
of the same name: that is how another process is played. A store that can't share its data is given twice.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from uuid import UUID, uuid4

from org_events.subscribing.errors import Superseded
from org_events.subscribing.stores import Claim, Mark, Parked, Progress, Store, hash_keys

Opens = Callable[[str], Store[Any]]
"""Opens the store of a subscriber, as one of its processes does."""
Check = Callable[[Opens], Awaitable[None]]

TOPIC: Final = UUID("0d4c1f0a-52cf-4a46-8d30-1c8f4b7b9a11")
MARK: Final = Mark(TOPIC, offset=2**40, loading=True, whole=False, partitions=12, epoch=3, epoch_offset=2**40 - 2)


def make_key() -> bytes:
    """The key of a new organization."""
    return str(uuid4()).encode()


async def save(store: Store[Any], progress: Progress) -> None:
    """Save in a transaction of its own."""
    async with store.transaction() as session:
        await store.save(session, progress)


def progress_of(claim: Claim, versions: Mapping[bytes, int], partition: int = 0, **others: Any) -> Progress:
    """What is saved first after a claim."""
    return Progress(partition, claim.fence, MARK, versions)._replace(**others)


async def what_is_saved_is_known_to_the_next_process(opens: Opens) -> None:
    """Versions with their signs, marks with all that they say."""
    name, present, deleted, unseen = uuid4().hex, make_key(), make_key(), make_key()
    store = opens(name)
    claim = await store.claim(0, 1)
    assert not claim.marks
    assert not claim.parked
    await save(store, progress_of(claim, {present: 7, deleted: -8}))
    following = opens(name)
    assert (await following.claim(0, 1)).marks == {0: MARK}
    assert dict(await following.known([present, deleted, unseen], 0, 1)) == {present: 7, deleted: -8}
    assert dict(await following.known(None, 0, 1)) == {present: 7, deleted: -8}


async def a_later_version_takes_the_place_of_the_former(opens: Opens) -> None:
    """Also the next save needs no new claim: its fence is one higher."""
    store, key = opens(uuid4().hex), make_key()
    claim = await store.claim(0, 1)
    await save(store, progress_of(claim, {key: 1}))
    await save(store, progress_of(claim, {key: -2}, fence=claim.fence + 1, mark=MARK._replace(loading=False)))
    assert dict(await store.known([key], 0, 1)) == {key: -2}
    assert (await store.claim(0, 1)).marks == {0: MARK._replace(loading=False)}


async def whoever_was_superseded_saves_nothing(opens: Opens) -> None:
    """The process before, and one that saves the same twice: as after a commit whose answer was lost."""
    name, key = uuid4().hex, make_key()
    before, after = opens(name), opens(name)
    old, new = await before.claim(0, 1), await after.claim(0, 1)
    await save(after, progress_of(new, {key: 1}))
    for store, fence in ((before, old.fence), (after, new.fence)):
        try:
            await save(store, progress_of(new, {key: 9}, fence=fence))
        except Superseded:
            continue
        raise AssertionError("somebody else's fence was accepted")
    assert dict(await after.known([key], 0, 1)) == {key: 1}


async def an_error_undoes_what_was_saved(opens: Opens) -> None:
    """The fence with it: the same save goes through afterwards."""
    store, key = opens(uuid4().hex), make_key()
    progress = progress_of(await store.claim(0, 1), {key: 1})
    try:
        async with store.transaction() as session:
            await store.save(session, progress)
            raise LookupError  # noqa: TRY301
    except LookupError:
        assert not await store.known([key], 0, 1)
    await save(store, progress)
    assert dict(await store.known([key], 0, 1)) == {key: 1}


async def partitions_and_subscribers_are_apart(opens: Opens) -> None:
    """A partition has the keys whose hash leads to it, whatever the number of partitions was when they were saved."""
    one, other = opens(uuid4().hex), opens(uuid4().hex)
    keys = [make_key() for _ in range(40)]
    claims = [await one.claim(number, 2) for number in range(2)]
    hashes = dict(zip(keys, hash_keys(keys), strict=True))
    for number, claim in enumerate(claims):
        ours = {key: 1 for key in keys if hashes[key] % 2 == number}
        await save(one, progress_of(claim, ours, number))
    assert (await one.claim(0, 2)).marks.keys() == {0, 1}
    for number in range(4):
        wanted = {key for key in keys if hashes[key] % 4 == number}
        assert (await one.known(None, number, 4)).keys() == wanted
    assert not await other.known(keys, 0, 1)
    assert not (await other.claim(0, 1)).marks


async def what_is_parked_waits_in_order_until_it_is_released(opens: Opens) -> None:
    """Of the claimed partition, with every byte."""
    name, keys = uuid4().hex, [make_key() for _ in range(20)]
    store = opens(name)
    claim = await store.claim(0, 1)
    parked = [Parked(key, version, bytes(range(256)), "why") for version in (10, 9, 2) for key in keys]
    await save(store, progress_of(claim, {}, parked=parked))
    hashes = dict(zip(keys, hash_keys(keys), strict=True))
    found = [await opens(name).claim(number, 3) for number in range(3)]
    for number, each in enumerate(found):
        ours = sorted(waiting for waiting in parked if hashes[waiting.key] % 3 == number)
        assert sorted(each.parked) == ours
        for key in keys:
            assert [waiting.version for waiting in each.parked if waiting.key == key] in ([2, 9, 10], [])
    gone = [(key, 2) for key in keys]
    await save(store, progress_of(await store.claim(0, 1), {}, released=gone))
    assert {each.version for each in (await store.claim(0, 1)).parked} == {9, 10}


CHECKS: Final[tuple[Check, ...]] = (
    what_is_saved_is_known_to_the_next_process,
    a_later_version_takes_the_place_of_the_former,
    whoever_was_superseded_saves_nothing,
    an_error_undoes_what_was_saved,
    partitions_and_subscribers_are_apart,
    what_is_parked_waits_in_order_until_it_is_released,
)
