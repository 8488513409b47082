"""The bench itself works: small runs, no judgement of speed."""

import json
from pathlib import Path

import pytest

import org_local
from tests.bench import machine, scenarios
from tests.bench.__main__ import write
from tests.bench.load import creations, organization_ids, updates
from tests.bench.reader import MismatchError, Seen, compare
from tests.bench.scenarios import Plan, Scene
from tests.bench.soak import soak

SMALL = Plan(runs=1, commands=2_000, organizations=500, warm_up=500, plain_commands=50, plain_warm_up=20, idle_s=2)
RATE_MAX = 200_000
"""A single broker and one Python process can't be faster; more means that the clock started too late."""


@pytest.mark.integration
def test_the_bench_measures_throughput_and_idle_latency(stack: org_local.Stack, tmp_path: Path) -> None:
    scene = Scene(stack, tmp_path, SMALL, print)
    path = tmp_path / "deep" / "bench.json"

    write(machine.describe(stack), scenarios.measure(scene, ["end_to_end", "latency_idle", "plain", "floor"]), path)

    report = json.loads(path.read_text())
    assert 10 < report["plain"]["commands_per_s"] < report["end_to_end"]["commands_per_s"] < RATE_MAX
    assert report["end_to_end"]["commands"] == 2_000
    assert report["end_to_end"]["ratio_to_plain"] > 1
    assert report["end_to_end"]["runs"][0]["commands_per_s"] == report["end_to_end"]["commands_per_s"]
    assert 0 < report["latency_idle"]["p50_ms"] <= report["latency_idle"]["p99_ms"]
    assert report["latency_idle"]["commands"] == 40
    assert report["durability"]["postgres"]["fsync"] == "on"


@pytest.mark.integration
def test_a_soak_samples_the_memory_of_both_processes(stack: org_local.Stack, tmp_path: Path) -> None:
    soaked = soak(stack, tmp_path, commands=2_000, warm_up=500, organizations=500, say=print)

    first, last = soaked.samples[0], soaked.samples[-1]
    assert (first.commands, last.commands) == (0, 2_000)
    assert set(first.rss_mb) == {"worker", "relay"}
    assert all(20 < rss_mb < 1_000 for rss_mb in (*first.rss_mb.values(), *last.rss_mb.values()))
    assert set(soaked.growth_mb()) == {"worker", "relay"}


def test_every_update_changes_something_and_each_organization_gets_as_many() -> None:
    org_ids = organization_ids(10)

    commands = updates(org_ids, 40, run=1)

    keys = [command.key for command in commands]
    assert {keys.count(str(org_id).encode()) for org_id in org_ids} == {4}
    assert len({command.value for command in [*commands, *updates(org_ids, 40, run=2)]}) == 80
    assert len({command.command_id for command in commands}) == 40


def test_a_missing_or_doubled_record_spoils_a_run() -> None:
    commands = creations(organization_ids(2))
    first, second = (command.command_id for command in commands)

    compare(Seen([second, first], [1.0, 2.0]), commands)
    for came in ([first], [first, first], [first, second, second], [first, b"another"]):
        with pytest.raises(MismatchError):
            compare(Seen(came, [1.0] * len(came)), commands)
