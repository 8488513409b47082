"""The edge as a process, and what its time gives away."""

import random
import statistics
import time
from pathlib import Path
from uuid import uuid4

import pytest

from org_service.settings import Settings
from tests.support import plain_http
from tests.support.edge import People, Site, add_staff, with_edge
from tests.support.processes import ServiceProcess

pytestmark = pytest.mark.integration


async def test_the_edge_is_served_by_a_process_that_drains(settings: Settings, tmp_path: Path) -> None:
    people = People(tmp_path)
    await add_staff(settings, "root")
    served = with_edge(settings, people)
    parts = [ServiceProcess(role, served, tmp_path) for role in ("worker", "relay", "edge")]
    try:
        for part in parts:
            part.start()
        for part in parts:
            part.wait_until_ready()
        with plain_http.client(base_url=parts[2].api_url() or "", headers=people.headers("root"), timeout=30) as root:
            headers = {"idempotency-key": "in-a-process"}
            made = root.post("/v1/orgs", json={"name": "Acme"}, headers=headers)
            while made.status_code == 503:  # until the edge is connected to Kafka
                made = root.post("/v1/orgs", json={"name": "Acme"}, headers=headers)
            assert made.status_code == 201
            assert root.get(made.headers["location"]).json()["name"] == "Acme"
        assert [part.terminate() for part in reversed(parts)] == [0, 0, 0]
        assert [part.errors() for part in parts] == [[], [], []]
        logged = parts[2].log_path.read_text()
        assert "Acme" not in logged
        assert people.token("root")[:20] not in logged
    finally:
        for part in parts:
            part.close()


def test_a_missing_and_an_invisible_organization_take_the_same_time(site: Site) -> None:
    secret = site.create(f"Secret {uuid4()}")
    times: dict[str, list[float]] = {"missing": [], "invisible": []}
    turns = random.Random(20_300_110)  # not in turn: whatever else the machine does may have a rhythm of its own
    with plain_http.client(base_url=site.url, headers=site.people.headers("stranger")) as client:
        for number in range(420):
            for kind in turns.sample(list(times), 2):
                org_id = secret if kind == "invisible" else str(uuid4())
                began = time.perf_counter()
                assert client.get(f"/v1/orgs/{org_id}").status_code == 404
                if number >= 20:
                    times[kind].append(time.perf_counter() - began)
    # The quicker half shows what the work takes; the slower one, what else the machine did meanwhile.
    missing, invisible = (statistics.quantiles(each, n=4)[0] for each in times.values())
    assert abs(missing - invisible) < 0.2 * min(missing, invisible)
