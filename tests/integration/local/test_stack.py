"""The local stack as a whole: real servers that start, stop, fail, come back, and never outlive their owner."""

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import org_local
from org_local import jars, warm_start
from org_local.kafka import find_recorded

pytestmark = pytest.mark.integration

TOPIC = "kept"
HEAP_MB = 256


@contextmanager
def foreground_stack(*arguments: str) -> Generator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`python -m org_local` in a process of its own, with the variables it printed."""
    with subprocess.Popen(
        [sys.executable, "-m", "org_local", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline().strip() for _ in range(2)]
            yield process, dict(line.split("=", 1) for line in lines)
        finally:
            process.kill()


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def names(processes: list[psutil.Process]) -> set[str]:
    return {process.name() for process in processes}


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


async def write(stack: org_local.Stack) -> None:
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute("CREATE TABLE kept AS SELECT 'a row' AS what")
    await connection.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 1, replication_factor=len(stack.kafka.brokers))])
    await admin.close()
    # Of those in sync any may be the next leader: what only the present one has would be lost with it.
    producer = AIOKafkaProducer(bootstrap_servers=stack.bootstrap_servers, acks="all")
    await producer.start()
    await producer.send_and_wait(TOPIC, b"a record")
    await producer.stop()


async def read_row(stack: org_local.Stack) -> object:
    connection = await asyncpg.connect(stack.database_url)
    try:
        return await connection.fetchval("SELECT what FROM kept")
    finally:
        await connection.close()


async def read_record(stack: org_local.Stack) -> bytes | None:
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=stack.bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        return (await asyncio.wait_for(consumer.getone(), timeout=30)).value
    finally:
        await consumer.stop()


async def test_commits_are_durable_as_in_production(stack: org_local.Stack) -> None:
    connection = await asyncpg.connect(stack.database_url)
    rows = await connection.fetch(
        "SELECT name, setting FROM pg_settings WHERE name = ANY($1)",
        [
            "fsync",
            "synchronous_commit",
            "full_page_writes",
        ],
    )
    version = await connection.fetchval("SHOW server_version_num")
    await connection.close()

    assert dict(rows) == {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
    assert 180_000 <= int(version) < 190_000


async def test_data_survive_a_stop_and_a_crash(tmp_path: Path) -> None:
    with await asyncio.to_thread(org_local.start, tmp_path, kafka_heap_mb=HEAP_MB) as first:
        await write(first)
        addresses = (first.bootstrap_servers, first.database_url)
    with await asyncio.to_thread(org_local.start, tmp_path, kafka_heap_mb=HEAP_MB) as second:
        assert (second.bootstrap_servers, second.database_url) == addresses
        assert await read_row(second) == "a row"
        assert await read_record(second) == b"a record"
        for server in (second.kafka, second.postgres):
            pids = server.pids()
            await asyncio.to_thread(server.kill)
            assert_gone([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)])
            await asyncio.to_thread(server.start)
        assert (second.bootstrap_servers, second.database_url) == addresses
        assert await read_row(second) == "a row"
        assert await read_record(second) == b"a record"


def test_postgres_starts_when_its_former_number_belongs_to_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a container's restart; Postgres alone refuses when that process has the same user."""
    monkeypatch.setenv("ORGS_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with org_local.start(tmp_path) as stack:
        stack.postgres.kill()
        data = tmp_path / "postgres"
        user = data.stat().st_uid if os.geteuid() == 0 else None
        with subprocess.Popen(["/bin/sleep", "600"], user=user) as bystander:
            try:
                pid_file = data / "postmaster.pid"
                lines = pid_file.read_text().splitlines()
                pid_file.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")

                stack.postgres.start()

                assert stack.postgres.running
                assert bystander.poll() is None
            finally:
                bystander.kill()


async def test_a_port_taken_in_the_meantime_is_replaced(tmp_path: Path) -> None:
    with await asyncio.to_thread(org_local.start, tmp_path, kafka_heap_mb=HEAP_MB) as first:
        await write(first)
        old_ports = (first.kafka.brokers[0].port, first.postgres.port)
    occupiers = [await asyncio.start_server(lambda *_: None, "127.0.0.1", port) for port in old_ports]
    try:
        with await asyncio.to_thread(org_local.start, tmp_path, kafka_heap_mb=HEAP_MB) as second:
            assert {second.kafka.brokers[0].port, second.postgres.port}.isdisjoint(old_ports)
            assert await read_row(second) == "a row"
            assert await read_record(second) == b"a record"
    finally:
        for occupier in occupiers:
            occupier.close()


async def test_a_paused_postgres_hangs_and_a_resumed_one_answers(stack: org_local.Stack) -> None:
    connection = await asyncpg.connect(stack.database_url)
    stack.postgres.pause()
    answer = asyncio.ensure_future(connection.fetchval("SELECT 1"))
    try:
        done, _ = await asyncio.wait([answer], timeout=0.3)
        assert not done
    finally:
        stack.postgres.resume()
    assert await asyncio.wait_for(answer, 10) == 1
    await connection.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_outlives_its_owner(tmp_path: Path, number: signal.Signals) -> None:
    with foreground_stack("--data", str(tmp_path), "--kafka-heap-mb", str(HEAP_MB)) as (owner, _):
        servers = descendants(owner.pid)
        assert {"java", "postgres"} <= names(servers)

        owner.send_signal(number)

        owner.wait(timeout=30)
        assert_gone(servers)
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()  # it was stopped, not killed


def test_a_killed_owner_leaves_no_temporary_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    tmp_path.chmod(0o755)
    with foreground_stack("--temporary", "--kafka-heap-mb", str(HEAP_MB)) as (owner, _):
        servers = descendants(owner.pid)
        assert len(list(tmp_path.glob("org-local-*"))) == 1

        owner.kill()

        owner.wait(timeout=30)
        assert_gone(servers)
    assert list(tmp_path.glob("org-local-*")) == []


def test_the_owner_ends_with_an_error_when_a_server_dies(tmp_path: Path) -> None:
    with foreground_stack("--data", str(tmp_path), "--kafka-heap-mb", str(HEAP_MB)) as (owner, _):
        servers = descendants(owner.pid)
        next(each for each in servers if each.name() == "java").kill()

        assert owner.wait(timeout=30) == 1
        assert owner.stderr is not None
        assert "error: Kafka node 1 ended" in owner.stderr.read()
        assert_gone(servers)


def test_a_second_stack_on_the_same_folder_reports_who_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORGS_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with foreground_stack("--data", str(tmp_path)) as (owner, variables):
        port = urlsplit(variables["ORGS_DATABASE__URL"]).port
        with pytest.raises(
            org_local.DataFolderInUseError, match=f"in use by another local stack, process {owner.pid};"
        ):
            org_local.start(tmp_path)
        supervisor = psutil.Process(owner.pid).children()[0]
        supervisor.suspend()
        try:
            owner.kill()
            owner.wait(timeout=30)
            # As long as a server may still run, or come to listen: neither folder nor port is anybody else's.
            with (tmp_path / "lock").open() as lock, pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket(type=socket.SOCK_DGRAM) as claim, pytest.raises(OSError, match="in use"):
                claim.bind(("127.0.0.1", port))
        finally:
            supervisor.resume()
        with org_local.start(tmp_path) as stack:  # its servers stop first, then the folder is free
            assert stack.postgres.running


def test_existing_servers_are_used_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGS_KAFKA__BOOTSTRAP_SERVERS", "broker.example:9092")
    monkeypatch.setenv("ORGS_DATABASE__URL", "postgresql://somebody@db.example/theirs")
    before = descendants(os.getpid())

    with org_local.start() as stack:
        assert stack.bootstrap_servers == "broker.example:9092"
        assert stack.database_url == "postgresql://somebody@db.example/theirs"
        assert descendants(os.getpid()) == before
        with pytest.raises(org_local.LocalStackError, match="ORGS_DATABASE__URL names an existing one"):
            _ = stack.postgres


def test_one_existing_server_and_one_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGS_KAFKA__BOOTSTRAP_SERVERS", "broker.example:9092")

    with org_local.start(tmp_path) as stack:
        assert stack.bootstrap_servers == "broker.example:9092"
        assert stack.postgres.running
        assert not (tmp_path / "kafka-1").exists()


def test_a_server_that_cannot_start_says_why_and_leaves_nothing_running(tmp_path: Path) -> None:
    before = descendants(os.getpid())

    with pytest.raises(org_local.ServerFailedError, match=r"(?s)Kafka node 1 ended; .*Too small maximum heap"):
        org_local.start(tmp_path, kafka_heap_mb=1)

    assert descendants(os.getpid()) == before
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


def test_a_folder_keeps_its_number_of_brokers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stack.json").write_text('{"cluster_id": "MkU3OEVBNTcwNTJENDM2Qk", "brokers": 1, "ports": {}}')

    with pytest.raises(org_local.LocalStackError, match=r"contains a Kafka of 1 broker\(s\), not 3"):
        org_local.start(tmp_path, brokers=3)


async def test_three_brokers_survive_the_loss_of_one() -> None:
    with await asyncio.to_thread(org_local.start, brokers=3, kafka_heap_mb=HEAP_MB) as stack:
        await write(stack)
        lost = stack.kafka.brokers[0]
        await asyncio.to_thread(lost.kill)

        assert await read_record(stack) == b"a record"

        await asyncio.to_thread(lost.start)
        assert stack.kafka.running


def test_a_start_that_was_recorded_is_used() -> None:
    folder = jars.ensure(lambda _: None)
    warm_start.record(folder, lambda _: None)
    with org_local.start() as stack:
        assert stack.kafka is not None
        (pid,) = stack.kafka.pids()
        files = {Path(each.path) for each in psutil.Process(pid).memory_maps()}
    assert find_recorded(folder).resolve() in files
