"""The client for scripts and programs without an event loop: the same calls, each of which waits.

    with SyncOrganizationClient(bootstrap_servers="kafka:9092", source="/billing") as orgs:
        result = orgs.execute(UpdateOrganization(org_id=org_id, name="Acme", expected_version=7))

One thread in the background has the loop and the connection. Whatever the caller gives to be iterated is iterated in
the caller's own thread, so that it may be a database cursor. ^C ends the call that waits and nothing else: the client
can be used on, and the exception notes which command may have been sent.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing
from queue import SimpleQueue
from typing import Any, Required, Self, TypeVar, Unpack
from uuid import UUID

from org_events.commands import AnyCommand, Command
from org_events.ids import uuid7
from org_events.publishing.client import IN_FLIGHT_MAX, OrganizationClient, Sent
from org_events.publishing.connection import ConnectionOptions
from org_events.publishing.errors import NotConnected
from org_events.publishing.tokens import TokenSource
from org_events.results import Result
from org_events.topics import Topics

_T = TypeVar("_T")
_Item = Command | tuple[UUID, Command]


class ClientOptions(ConnectionOptions, total=False):
    """What `OrganizationClient` is made with. The functions among them are called in the thread in the background."""

    bootstrap_servers: Required[str]
    source: Required[str]
    topics: Topics
    actor: str
    token: TokenSource
    traceparent: Callable[[], str | None]
    timeout_s: float


class SyncOrganizationClient:
    """Sends commands and waits for their outcomes. Threads may share one.

    Args:
        options: As of `OrganizationClient`.
    """

    def __init__(self, **options: Unpack[ClientOptions]) -> None:
        self._client = OrganizationClient(**options)
        self._thread = _LoopThread()

    def __enter__(self) -> Self:
        """As `OrganizationClient.start`; nothing is left open where it raises."""
        self._thread.start()
        try:
            self._thread.wait_for(self._client.start)
        except BaseException:
            self._thread.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """As `OrganizationClient.stop`; a ^C meanwhile makes it end at once."""
        try:
            self._thread.wait_for(self._client.stop)
        finally:
            self._thread.stop()

    def execute(self, command: AnyCommand, *, command_id: UUID | None = None, timeout_s: float | None = None) -> Result:
        """Send a command and wait for its outcome; as `OrganizationClient.execute`."""
        command_id = command_id or uuid7()
        try:
            return self._thread.wait_for(
                lambda: self._client.execute(command, command_id=command_id, timeout_s=timeout_s)
            )
        except KeyboardInterrupt as interrupt:
            raise _noted(interrupt, command, command_id) from None

    def send(self, command: AnyCommand, *, command_id: UUID | None = None, timeout_s: float | None = None) -> Sent:
        """Send a command without waiting for its outcome; as `OrganizationClient.send`."""
        command_id = command_id or uuid7()
        try:
            return self._thread.wait_for(lambda: self._client.send(command, command_id=command_id, timeout_s=timeout_s))
        except KeyboardInterrupt as interrupt:
            raise _noted(interrupt, command, command_id) from None

    def outcome(self, command_id: UUID, *, timeout_s: float | None = None) -> Result:
        """Wait for the outcome of a command that this client sent; as `OrganizationClient.outcome`."""
        return self._thread.wait_for(lambda: self._client.outcome(command_id, timeout_s=timeout_s))

    def execute_many(
        self, commands: Iterable[_Item], *, in_flight_max: int = IN_FLIGHT_MAX, timeout_s: float | None = None
    ) -> Generator[Result, None, None]:
        """Send many commands, many at a time, and give their outcomes in the same order.

        As `OrganizationClient.execute_many`; `commands` is iterated in the thread of the caller, between outcomes.
        After a ^C, or where this is left early, some of the last `in_flight_max` commands may have been applied.
        """
        if in_flight_max < 1:
            raise ValueError("in_flight_max must be 1 or more")
        exchange = _Exchange()
        pumping = self._thread.begin(lambda: exchange.pump(self._client, in_flight_max, timeout_s))
        try:
            yield from exchange.feed(commands, in_flight_max, self._thread)
        finally:
            pumping.cancel()


class _LoopThread:
    """A thread with an event loop. It is a daemon: a program that ends without saying so isn't kept from it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        """Nothing is handed to the loop behind its end: nobody would ever hear of it."""
        self._end: asyncio.Event
        self._thread: threading.Thread

    def start(self) -> None:
        """Begin.

        Raises:
            NotConnected: It runs already.
        """
        if self._loop is not None:
            raise NotConnected("The client is already started.")
        begun: Future[asyncio.AbstractEventLoop] = Future()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(begun,), name="org-events", daemon=True)
        self._thread.start()
        self._loop = begun.result()

    def stop(self) -> None:
        """End, with all that is left in the loop."""
        with self._lock:
            loop, self._loop = self._loop, None
            if loop is None:
                return
            loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def call(self, function: Callable[[_T], object], argument: _T) -> None:
        """Let the loop call a function soon."""
        with self._lock:
            self._running().call_soon_threadsafe(function, argument)

    def begin(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> Future[_T]:
        """Begin a coroutine; cancelling the future cancels it."""
        with self._lock:
            loop = self._running()
            return asyncio.run_coroutine_threadsafe(make(), loop)

    def wait_for(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine and wait; whatever interrupts the waiting cancels it."""
        running = self.begin(make)
        try:
            return running.result()
        except CancelledError as error:
            raise NotConnected("The client was stopped.") from error
        except BaseException:
            running.cancel()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise NotConnected("The client is not started: use `with SyncOrganizationClient(…)`.")
        return self._loop

    def _run(self, begun: Future[asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner() as runner:
            begun.set_result(runner.get_loop())
            runner.run(_wait(self._end))


async def _wait(end: asyncio.Event) -> None:
    await end.wait()


class _Exchange:
    """Commands on their way from a caller's thread to the loop, and outcomes on their way back."""

    def __init__(self) -> None:
        self._commands: asyncio.Queue[_Item | None] = asyncio.Queue()
        self._outcomes: SimpleQueue[Result | Exception] = SimpleQueue()

    async def pump(self, client: OrganizationClient, in_flight_max: int, timeout_s: float | None) -> None:
        """In the loop."""
        try:
            results = client.execute_many(self._arriving(), in_flight_max=in_flight_max, timeout_s=timeout_s)
            async with aclosing(results):
                async for result in results:
                    self._outcomes.put(result)
        except asyncio.CancelledError:
            self._outcomes.put(NotConnected("The client was stopped."))
            raise
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits for it
            self._outcomes.put(error)

    def feed(self, commands: Iterable[_Item], in_flight_max: int, thread: _LoopThread) -> Generator[Result, None, None]:
        """In the caller's thread: hand commands over, and give the outcomes that are there, or must be waited for."""
        in_flight = 0
        source = _Source(commands)
        for command in source:
            thread.call(self._commands.put_nowait, command)
            in_flight += 1
            while in_flight >= in_flight_max or not self._outcomes.empty():
                yield self._take()
                in_flight -= 1
        thread.call(self._commands.put_nowait, None)
        for _ in range(in_flight):
            yield self._take()
        if source.error is not None:
            raise source.error

    async def _arriving(self) -> AsyncIterator[_Item]:
        while (command := await self._commands.get()) is not None:
            yield command

    def _take(self) -> Result:
        outcome = self._outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class _Source:
    """What the caller gave; its error is kept until the outcomes of all before it were handed out."""

    def __init__(self, commands: Iterable[_Item]) -> None:
        self._commands = commands
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[_Item]:
        try:
            yield from self._commands
        except Exception as error:  # noqa: BLE001 - raised later
            self.error = error


def _noted(interrupt: KeyboardInterrupt, command: AnyCommand, command_id: UUID) -> KeyboardInterrupt:
    interrupt.add_note(
        f"{command.type} {command_id} may have been sent, and applied. Send it again with the same command id: that is "
        "safe, it takes effect at most once."
    )
    return interrupt
