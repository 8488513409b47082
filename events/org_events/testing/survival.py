"""`assert_survives`: whether a handler ends where it should, whatever happens to it on the way."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload
from uuid import UUID

from org_events.organization import Organization
from org_events.testing.cases import CASES, Case, Harness, events
from org_events.testing.changes import DeliveredChange, to_change
from org_events.testing.golden import Message, fold
from org_events.testing.harness import SubscriberHarness

if TYPE_CHECKING:
    from org_events.subscribing import Change, Store

T = TypeVar("T")
S = TypeVar("S")
Organizations = Mapping[UUID, Organization]
_DIFFERENCES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that the handler does not survive."""

    case: Case
    what: str

    def __str__(self) -> str:
        return f"{self.case.name}: when {self.case.what}\n{self.what}\n  usually: {self.case.usually}"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a handler in each case that was tried."""

    tried: Sequence[Case]
    failures: Sequence[Failure]

    def __str__(self) -> str:
        if not self.failures:
            return f"The handler survives {len(self.tried)} cases."
        head = f"The handler does not survive {len(self.failures)} of {len(self.tried)} cases."
        return "\n\n".join([head, *map(str, self.failures)])


@overload
async def assert_survives(
    handler: Callable[[DeliveredChange], Awaitable[object]],
    *,
    state: Callable[[], Awaitable[S] | S],
    reset: Callable[[], object],
    expect: Callable[[Organizations], object] = ...,
) -> None: ...
@overload
async def assert_survives(
    handler: Callable[[T], Awaitable[object]],
    *,
    state: Callable[[], Awaitable[S] | S],
    reset: Callable[[], object],
    expect: Callable[[Organizations], object] = ...,
    adapt: Callable[[Message], T],
) -> None: ...
@overload
async def assert_survives(
    handler: Callable[["Change[T]"], Awaitable[object]],
    *,
    state: Callable[[], Awaitable[S] | S],
    reset: Callable[[], object],
    expect: Callable[[Organizations], object] = ...,
    store: Callable[[], "Store[T]"],
) -> None: ...
async def assert_survives(
    handler: Callable[[Any], Awaitable[object]],
    *,
    state: Callable[[], object],
    reset: Callable[[], object],
    expect: Callable[[Organizations], object] = dict[UUID, Organization],
    adapt: Callable[[Message], Any] = to_change,
    store: "Callable[[], Store[Any]] | None" = None,
) -> None:
    """Run a handler through everything that happens to subscribers, and compare where it ends.

    Each case begins with `reset`, gives the handler the golden events as Kafka would in that case, and compares `state`
    with what `expect` makes of the organizations that are there in the end.

    Args:
        handler: An async function of a change. In one case it is cancelled where it waits, as a process that ends.
        state: Gives, plainly or awaited, what the handler keeps.
        reset: Empties that, with the versions and offsets that the handler keeps.
        expect: What the handler should keep; by default every `Organization` by its id.
        adapt: As of `SubscriberHarness`.
        store: Gives the store of a subscriber of the kit: the handler is given what an `OrganizationSubscriber` hands
            out, with `change.transaction()`. Called for each process; `reset` empties it, too.

    Raises:
        AssertionError: The handler does not survive; the text says what, and what is usually the reason.
    """
    report = await survey(handler, state=state, reset=reset, expect=expect, adapt=adapt, store=store)
    if report.failures:
        raise AssertionError(str(report))


async def survey(
    handler: Callable[[Any], Awaitable[object]],
    *,
    state: Callable[[], object],
    reset: Callable[[], object],
    expect: Callable[[Organizations], object] = dict[UUID, Organization],
    adapt: Callable[[Message], Any] = to_change,
    store: "Callable[[], Store[Any]] | None" = None,
    cases: Iterable[Case] = CASES,
) -> Report:
    """As `assert_survives`, for who wants the report. Where the first case fails, no other is tried."""
    expected = expect(fold(events()))
    tried: list[Case] = []
    failures: list[Failure] = []
    for case in cases:
        await _now(reset())
        tried.append(case)
        what = await _try(case, _make_harness(handler, adapt, store), state, expected)
        if what is not None:
            failures.append(Failure(case, what))
            if len(tried) == 1:
                break
    return Report(tried, failures)


def _make_harness(
    handler: Callable[[Any], Awaitable[object]],
    adapt: Callable[[Message], Any],
    store: "Callable[[], Store[Any]] | None",
) -> Harness:
    if store is None:
        return SubscriberHarness(handler, adapt=adapt)
    from org_events.testing.kit import KitHarness  # noqa: PLC0415 - needs org-events[kafka]

    return KitHarness(handler, store)


async def _try(case: Case, harness: Harness, state: Callable[[], object], expected: object) -> str | None:
    """What went wrong."""
    try:
        await case.deliver(harness)
    except Exception as error:  # noqa: BLE001 - it is the handler's
        return f"  it raises {error!r} {' '.join(error.__notes__)}"
    ended = await _now(state())
    if ended == expected:
        return None
    return "\n".join(f"  {line}" for line in [*_traces(ended), *_differences(ended, expected)])


async def _now(given: object) -> object:
    return await given if isawaitable(given) else given


def _traces(ended: object) -> list[str]:
    """What is left of organizations that were erased."""
    ids = {event.key for event in events() if event.message == "org.erased"}
    names = {event.body["after"]["name"] for event in events() if event.key in ids and event.body["after"]}
    return [f"it still holds {name!r} of an organization that was erased" for name in names if name in repr(ended)]


def _differences(ended: object, expected: object) -> list[str]:
    if not isinstance(ended, Mapping) or not isinstance(expected, Mapping):
        return [f"it ends with {ended!r}", f"instead of   {expected!r}"]
    kept, wanted = cast("Mapping[Any, Any]", ended), cast("Mapping[Any, Any]", expected)
    wrong = [
        key for key in [*wanted, *(kept.keys() - wanted.keys())] if key not in kept or kept[key] != wanted.get(key)
    ]
    lines = [_difference(key, kept, wanted) for key in islice(wrong, _DIFFERENCES_SHOWN)]
    return lines if len(wrong) <= _DIFFERENCES_SHOWN else [*lines, f"and {len(wrong) - _DIFFERENCES_SHOWN} more"]


def _difference(key: Any, kept: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> str:
    if key not in kept:
        return f"{key!r} is missing; should be {wanted[key]!r}"
    if key not in wanted:
        return f"{key!r} should not be there; is {kept[key]!r}"
    was, should_be = kept[key], wanted[key]
    if isinstance(was, Organization) and isinstance(should_be, Organization):
        wrong = [name for name in Organization.model_fields if getattr(was, name) != getattr(should_be, name)]
        return f"{key!r}: " + ", ".join(
            f"{name} is {getattr(was, name)!r}; should be {getattr(should_be, name)!r}" for name in wrong
        )
    return f"{key!r} is {was!r}; should be {should_be!r}"
