"""Clients of Kafka that outlive the addresses of their brokers, and connections that were dropped silently.

aiokafka asks the bootstrap addresses once, at the start. From then on it knows only the brokers that brokers name: when
all of these are gone at once (a cluster that moved, pods that came back with other addresses), it asks dead addresses
forever, though the bootstrap address leads to the new ones. Java's clients ask it again (KIP-899, KIP-1102), and so
does `EnduringClient`. And a connection that a load balancer or a firewall forgot looks alive: whatever is sent on it
waits for its whole time-out. So connections keep themselves alive, and one that was idle is asked before it is used.

Both are fixed within the client, so that a consumer keeps its group and its positions and a producer its buffers:
nothing in flight is given up, nothing is read twice or missed. Declined: building a consumer or producer again after a
silence; each of their users would have to carry over what was in flight. aiokafka has no hook for any of it, so the
class of one instance's client is exchanged; other users of aiokafka in the process aren't touched.
"""

# The client's internals have types only in part; what they do is pinned by tests against a real broker.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

import asyncio
import logging
import socket
import time
from collections import defaultdict
from contextlib import nullcontext
from typing import Any, Final, TypeVar, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import BrokerMetadata

_log = logging.getLogger(__name__)

SILENCE_S: Final = 5.0
"""How long brokers may be silent where they should answer at once: then the bootstrap addresses are asked for others,
or another connection is tried. Neither does harm where they are only slow. Well below a session of a consumer group."""
CONNECT_TIMEOUT_S: Final = 10.0
"""To open a connection, TLS and credentials included; as Java's socket.connection.setup.timeout.ms. An address that
swallows packets would else cost a request time-out at each try."""
IDLE_S: Final = 5.0
"""A connection that was idle for longer is asked before it is used: one round trip, where nobody is in a hurry."""
PROBE_TIMEOUT_S: Final = 1.0
"""For the answer to that; then another connection is opened."""
_KEEPALIVE: Final = {
    "TCP_KEEPIDLE": 5,  # seconds; load balancers and firewalls forget what is idle for 60 to 350 s, some much sooner
    "TCP_KEEPALIVE": 5,  # the same, as macOS names it
    "TCP_KEEPINTVL": 5,  # seconds
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 10_000,  # milliseconds that something sent may stay unacknowledged by the other machine
}
"""tcp(7). What a system doesn't know is left out."""

_Node = int | str
_Client = TypeVar("_Client", AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient)


class OtherClusterError(KafkaError):
    """An address leads to another cluster than before; its offsets mean other records, so it isn't talked to."""


def make_enduring(client: _Client) -> _Client:
    """Make a consumer, producer or admin client outlive its brokers' addresses.

    Args:
        client: One that is not started.

    Returns:
        The same one.
    """
    inner = client.client if isinstance(client, AIOKafkaProducer) else client._client
    inner.__class__ = EnduringClient
    cast("EnduringClient", inner)._endure()
    return client


class _OneCluster(ClusterMetadata):
    """What is known of one cluster."""

    cluster_id: str | None = None
    """None before a broker told it (which is never, for brokers before 0.10.1)."""

    def update_metadata(self, metadata: Any) -> None:
        """Take an answer over.

        Raises:
            OtherClusterError: Another cluster gave it; nothing was changed.
        """
        found = getattr(metadata, "cluster_id", None)
        if self.cluster_id is not None and found is not None and found != self.cluster_id:
            raise OtherClusterError(f"Kafka's address now leads to cluster {found}, before to {self.cluster_id}")
        self.cluster_id = self.cluster_id or found
        super().update_metadata(metadata)


class EnduringClient(AIOKafkaClient):
    """The client inside of aiokafka's consumers, producers and admin clients; see the module."""

    cluster: _OneCluster

    def __init__(self, **options: Any) -> None:
        """Take the options of `AIOKafkaClient`."""
        super().__init__(**options)
        self._endure()

    def _endure(self) -> None:
        self.cluster.__class__ = _OneCluster
        self._ended = False
        self._other: OtherClusterError | None = None
        self._opening: defaultdict[tuple[_Node, ConnectionGroup], asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def _get_conn_lock(self) -> Any:
        """No lock: aiokafka's is one for all brokers, so one that swallows packets would keep us from the others."""
        return nullcontext()

    async def bootstrap(self) -> None:
        """Learn from the bootstrap addresses which brokers there are.

        aiokafka's own leaves its connection open where it is cancelled, or told of another cluster.

        Raises:
            KafkaConnectionError: No address answers; all connections are closed, and it may be called again.
        """
        if not await self._ask_bootstrap(self.cluster, MetadataRequest([])):
            raise self._other or KafkaConnectionError(f"Unable to bootstrap from {self.hosts}")
        if not self._sync_task:
            self._sync_task = asyncio.create_task(self._md_synchronizer())

    async def send(self, node_id: _Node, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT) -> Any:
        """Send a request, and wait for its answer.

        What a broker that is well answers at once has no need of the whole time-out: a connection that says nothing
        then is closed, and the caller tries again on another. The rest may take its time (a batch until all copies
        have it, a group until all members are there).
        """
        if not isinstance(request, FetchRequest | HeartbeatRequest):
            return await super().send(node_id, request, group=group)
        wait_s = SILENCE_S + (request._max_wait_ms / 1000 if isinstance(request, FetchRequest) else 0)
        watch = asyncio.get_running_loop().call_later(wait_s, self._close_silent, (node_id, group), wait_s)
        try:
            return await super().send(node_id, request, group=group)
        finally:
            watch.cancel()

    def _close_silent(self, which: tuple[_Node, ConnectionGroup], wait_s: float) -> None:
        connection = self._conns.get(which)
        if connection is None or not connection.connected() or _measure_silence_s(connection) < wait_s:
            return
        reader: Any = connection._reader
        if not reader._buffer:  # a large answer on a slow line has come in part
            connection.close(reason=CloseReason.CONNECTION_TIMEOUT)

    async def fetch_all_metadata(self) -> ClusterMetadata:
        """Ask for the metadata of all topics.

        Raises:
            OtherClusterError: The addresses lead to another cluster now.
            KafkaError: No broker answers.
        """
        found = _OneCluster(metadata_max_age_ms=self._metadata_max_age_ms)
        found.cluster_id = self.cluster.cluster_id
        if not await self._metadata_update(found, None):
            raise self._other or KafkaError("no broker responds, neither a known one nor a bootstrap server")
        return found

    async def _metadata_update(self, cluster_metadata: ClusterMetadata, topics: Any) -> bool:
        """Ask the known brokers, and the bootstrap addresses where none of them answers soon."""
        known = asyncio.create_task(self._ask_known(cluster_metadata, topics))
        try:
            await asyncio.wait({known}, timeout=SILENCE_S)
            answered = known.done() and known.result()
            request = MetadataRequest(list(topics) if topics else None)
            answered = answered or await self._ask_bootstrap(cluster_metadata, request) or await known
        except Exception:  # noqa: BLE001 - it would end the task that keeps the metadata fresh, in silence
            _log.exception("the metadata cannot be read; requesting them again")
            return False
        else:
            self._other = None if answered else self._other
            return answered
        finally:
            known.cancel()
            await asyncio.gather(known, return_exceptions=True)

    async def _ask_known(self, cluster_metadata: ClusterMetadata, topics: Any) -> bool:
        try:
            return await super()._metadata_update(cluster_metadata, topics)
        except OtherClusterError as error:
            self._note_other_cluster(error)
            return False

    async def _ask_bootstrap(self, cluster_metadata: ClusterMetadata, request: MetadataRequest) -> bool:
        """Ask one bootstrap address after the other, and continue with the brokers that it names."""
        for host, port, _ in self.hosts:
            node = f"bootstrap {host}:{port}"
            # Known by a name of their own, they are connected to as brokers are.
            self.cluster._bootstrap_brokers[node] = BrokerMetadata(node, host, port, None)
            connection = await self._get_conn(node)
            if connection is None:
                continue
            try:
                async with asyncio.timeout(SILENCE_S):
                    metadata: Any = await connection.send(request)
                if metadata.brokers:
                    self._continue_with(cluster_metadata, metadata)
                    return True
            except OtherClusterError as error:
                self._note_other_cluster(error)
            except (KafkaError, OSError, TimeoutError) as error:
                _log.debug("%s does not return metadata: %r", node, error)
            finally:
                connection.close()
                self._conns.pop((node, ConnectionGroup.DEFAULT), None)
        return False

    def _note_other_cluster(self, error: OtherClusterError) -> None:
        if self._other is None or str(self._other) != str(error):
            _log.error("%s; nothing was read from it or sent to it. If this is intended, restart this program", error)
        self._other = error

    def _continue_with(self, cluster_metadata: ClusterMetadata, metadata: Any) -> None:
        before = {(broker.host, broker.port) for broker in self.cluster.brokers()}
        cluster_metadata.update_metadata(metadata)
        if cluster_metadata is not self.cluster:
            self.force_metadata_update()
            return
        if before and before != {(broker.host, broker.port) for broker in self.cluster.brokers()}:
            _log.warning("no known broker responds; continuing with those that the bootstrap servers name")
        for (node, _), connection in list(self._conns.items()):
            broker = self.cluster.broker_metadata(node)
            moved = broker is None or (broker.host, broker.port) != (connection.host, connection.port)
            if moved or (connection._requests and _measure_silence_s(connection) > SILENCE_S):
                connection.close()  # callers waiting for a response get an error, and retry

    async def _get_conn(
        self, node_id: _Node, *, group: ConnectionGroup = ConnectionGroup.DEFAULT, no_hint: bool = False
    ) -> AIOKafkaConnection | None:
        """A connection that works, as far as can be known; None where there is none."""
        connection = self._conns.get((node_id, group))
        if connection is not None and connection.connected() and not _is_idle(connection):
            return connection
        async with self._opening[node_id, group]:
            connection = self._conns.get((node_id, group))
            if connection is not None and connection.connected() and await _answers(connection):
                return connection
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    connection = await super()._get_conn(node_id, group=group, no_hint=no_hint)
            except TimeoutError:
                _log.warning("broker %s does not respond on a new connection", node_id)
                self.force_metadata_update()
                return None
            # Closed meanwhile, the client closes nothing any more; and a broker may hang up on whom it just let in.
            if connection is not None and (self._ended or not _keep_alive(connection)):
                connection.close()
                return None
            return connection

    async def close(self) -> None:
        """Close all connections, also those that are being opened; whoever waits for metadata hears that none come."""
        self._ended = True
        await super().close()
        waiting, self._md_update_fut = self._md_update_fut, None
        if waiting is not None and not waiting.done():
            waiting.set_result(False)

    def force_metadata_update(self) -> asyncio.Future[bool]:
        """Ask for metadata soon; false where none come. Of a closed client aiokafka would let us wait for ever."""
        if not self._ended:
            return super().force_metadata_update()
        none = asyncio.get_running_loop().create_future()
        none.set_result(False)
        return none


def _measure_silence_s(connection: AIOKafkaConnection) -> float:
    """For how long nothing has come from there."""
    return time.monotonic() - connection._last_action


def _is_idle(connection: AIOKafkaConnection) -> bool:
    return not connection._requests and _measure_silence_s(connection) > IDLE_S


async def _answers(connection: AIOKafkaConnection) -> bool:
    """Whether something is at the other end; a connection that doesn't answer is closed."""
    if not _is_idle(connection):
        return True
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await connection.send(ApiVersionRequest())
    except (KafkaError, OSError, TimeoutError):
        connection.close(reason=CloseReason.IDLE_DROP)
        return False
    return True


def _keep_alive(connection: AIOKafkaConnection) -> bool:
    """Let the system watch over a connection; whether it is still there."""
    writer: Any = connection._writer
    if writer is None:
        return False
    sock = writer.get_extra_info("socket")
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except OSError:  # the other end is gone, and nobody has noticed yet
        return False
    return True
