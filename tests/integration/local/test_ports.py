"""A port has one owner, and a stack knows its own servers from others on its ports."""

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest

import org_local
from org_local import ports

pytestmark = pytest.mark.integration

HEAP_MB = 256


def remember(folder: Path, **numbers: int) -> Path:
    """A data folder that was used with these ports."""
    folder.mkdir()
    named = {name.replace("_", "-"): number for name, number in numbers.items()}
    state = {"cluster_id": "MkU3OEVBNTcwNTJENDM2Qk", "brokers": 1, "ports": named}
    (folder / "stack.json").write_text(json.dumps(state))
    return folder


def take_blindly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stack have the remembered ports, as if another program took them after the check."""
    claim = ports.claim

    def blind(last: int | None) -> tuple[int, socket.socket]:
        port, held = claim(None)
        return last or port, held

    monkeypatch.setattr(ports, "claim", blind)


def test_ports_stay_out_of_the_range_of_outgoing_connections() -> None:
    taken: set[int] = set()
    picked = {ports.pick(None, taken) for _ in range(50)}

    assert len(picked) == 50
    assert max(picked) < 32_768
    assert ports.pick(min(picked), set()) == min(picked)
    assert ports.pick(min(picked), taken) != min(picked)


def test_a_claimed_port_stays_claimed_until_the_claim_is_closed() -> None:
    port, claim = ports.claim(None)
    with claim:
        assert port < 32_768
        assert ports.is_free(port)  # for the server it was claimed for
        other, its_claim = ports.claim(port)
        its_claim.close()
        assert other != port
    again, claim = ports.claim(port)
    claim.close()
    assert again == port


def test_a_port_claimed_by_a_process_that_was_killed_is_free() -> None:
    script = "from org_local import ports; got = ports.claim(None); print(got[0], flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        other, claim = ports.claim(port)
        claim.close()
        assert other != port
        holder.kill()
    again, claim = ports.claim(port)
    claim.close()
    assert again == port


async def test_two_copies_of_a_folder_started_together_have_their_own_servers(tmp_path: Path) -> None:
    numbers: dict[str, int] = {}
    for name in ("kafka_1", "controller_1", "postgres"):
        numbers[name] = ports.pick(None, set())
    folders = [remember(tmp_path / name, **numbers) for name in ("original", "copy")]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda each: org_local.start(each, kafka_heap_mb=HEAP_MB), folders)
    with first, second:
        assert first.bootstrap_servers != second.bootstrap_servers
        for stack, folder in zip((first, second), folders, strict=True):
            connection = await asyncpg.connect(stack.database_url)
            assert await connection.fetchval("SHOW data_directory") == str(folder / "postgres")
            await connection.close()
            stack.check()


def test_another_kafka_on_the_port_is_not_taken_for_ours(
    stack: org_local.Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = remember(tmp_path / "data", kafka_1=stack.kafka.brokers[0].port)
    take_blindly(monkeypatch)
    monkeypatch.setenv("ORGS_DATABASE__URL", stack.database_url)

    with pytest.raises(org_local.ServerFailedError, match=r"(?s)Kafka node 1 ended; .*Address already in use"):
        org_local.start(folder, kafka_heap_mb=HEAP_MB)


def test_another_postgres_on_the_port_is_not_taken_for_ours(
    stack: org_local.Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = remember(tmp_path / "data", postgres=stack.postgres.port)
    take_blindly(monkeypatch)
    monkeypatch.setenv("ORGS_KAFKA__BOOTSTRAP_SERVERS", stack.bootstrap_servers)

    with pytest.raises(org_local.ServerFailedError, match=r"(?s)Postgres ended; .*Address already in use"):
        org_local.start(folder)
