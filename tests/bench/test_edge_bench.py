"""The bench of the edge itself works: small runs, no judgement of speed."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import org_local
from tests.bench import machine, report, scenarios
from tests.bench.edge import EdgePlan
from tests.bench.edge_data import EdgeData
from tests.bench.edge_load import Answered, Asked, by_kind, percentiles
from tests.bench.scenarios import Plan, Scene

SMALL = EdgePlan(
    runs=1,
    organizations=3_000,
    memberships=6_000,
    users=200,
    warm_up=100,
    rate=100,
    seconds=3,
    update_rate=20,
    update_s=1,
)


@pytest.mark.integration
def test_the_bench_measures_reads_of_every_kind_and_updates(stack: org_local.Stack, tmp_path: Path) -> None:
    scene = Scene(stack, tmp_path, Plan(http=SMALL), print)

    results = scenarios.measure(scene, ["edge_read", "http_update"])

    read = results["edge_read"]
    assert 0 < read["p50_ms"] <= read["p99_ms"] <= read["max_ms"]
    assert read["requests"] == 300
    assert sum(kind["requests"] for kind in read["runs"][0]["kinds"].values()) == 300
    assert set(read["kinds"]) == {
        "get",
        "get_invisible",
        "get_not_modified",
        "list_staff",
        "list_staff_deep",
        "list_staff_search",
        "list_user",
    }
    assert (read["organizations"], read["memberships"], read["rate_per_s"]) == (3_000, 6_000, 100)
    assert {"edge", "postgres", "load"} <= read["cpu_us_per_request"].keys()
    assert results["http_update"]["requests"] == 20
    assert {"edge", "worker", "relay", "load"} <= results["http_update"]["cpu_us_per_request"].keys()
    shown = Console(file=StringIO(), width=130)
    report.render(machine.describe(stack) | {"scenarios": results}, shown)
    assert "list_staff_deep" in shown.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue] - a StringIO


def test_a_late_answer_counts_from_when_its_request_was_due() -> None:
    figures = by_kind(
        [Asked("a", b"", 200), Asked("b", b"", 200), Asked("a", b"", 200)], Answered([1.0, 7.0, 3.0], [200, 200, 200])
    )
    assert figures == {
        "a": {"requests": 2, "p50_ms": 1.0, "p99_ms": 3.0, "max_ms": 3.0},
        "b": {"requests": 1, "p50_ms": 7.0, "p99_ms": 7.0, "max_ms": 7.0},
    }
    assert percentiles([float(number) for number in range(1, 201)]) == {
        "p50_ms": 100.0,
        "p99_ms": 198.0,
        "max_ms": 200.0,
    }


def test_data_of_the_same_numbers_are_the_same_and_hide_what_they_say_they_hide() -> None:
    one, other = EdgeData(1_000, 2_000), EdgeData(1_000, 2_000)
    assert one.ids == other.ids
    assert len(set(one.names)) == 1_000
    memberships = [(user, place) for user in range(one.users) for place in one.places_of(user)]
    assert len(memberships) == len(set(memberships)) == 2_000
    clients = {row[1] for row in one.partnership_rows()}
    for user in range(one.users):
        hidden = one.hidden_from(user)
        assert hidden not in clients
        assert hidden not in {one.ids[place] for place in one.places_of(user)}
