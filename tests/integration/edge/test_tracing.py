"""Spans from a request to its event, as a collector of traces receives them from real processes."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from org_service.settings import Settings
from tests.support import grafana, plain_http
from tests.support.collector import Collector, Span
from tests.support.edge import People, add_staff, with_edge
from tests.support.processes import ServiceProcess
from tests.support.topics import read_topic
from tests.support.waiting import wait_for

pytestmark = pytest.mark.integration

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE_ID}-b7ad6b7169203331-01"
UNSAMPLED = "00-5bd4e16e7c9d44c1a5c0d5d0e57b1a11-b7ad6b7169203331-00"
CANARY = "Kanarifugl AS"
BATCHES = ("process commands", "publish outcomes")
"""The spans of the worker's and the relay's batches."""


def traced(collector: Collector, trace_id: str = TRACE_ID) -> dict[str, Span]:
    return {span.name: span for span in collector.spans if span.trace_id == trace_id}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as started:
        yield started


async def test_one_change_is_one_trace_from_the_request_to_its_event(
    settings: Settings, tmp_path: Path, collector: Collector
) -> None:
    people = People(tmp_path)
    await add_staff(settings, "root")
    tracing = collector.settings(ratio=0, headers='{"authorization": "Bearer collect"}', service_name="orgs-test")
    served = with_edge(settings, people).model_copy(update={"tracing": tracing})
    parts = [ServiceProcess(role, served, tmp_path) for role in ("worker", "relay", "edge", "operate")]
    try:
        for part in parts:  # one after the other: four that start at once are slow on a busy machine
            part.start()
            part.wait_until_ready()
        with plain_http.client(base_url=parts[2].api_url() or "", headers=people.headers("root"), timeout=30) as root:
            made = root.post("/v1/orgs", json={"name": "Acme"}, headers={"idempotency-key": "k"})
            while made.status_code == 503:  # until the edge is connected to Kafka
                made = root.post("/v1/orgs", json={"name": "Acme"}, headers={"idempotency-key": "k"})
            assert made.status_code == 201
            path = made.headers["location"].partition("/v1/")[2]
            changed = root.patch(f"/v1/{path}", json={"name": CANARY}, headers={"traceparent": CALLER})
            assert changed.status_code == 200
            quiet = root.patch(f"/v1/{path}", json={"domain": "quiet.com"}, headers={"traceparent": UNSAMPLED})
            assert quiet.status_code == 200
            called = root.post(
                "/mcp",
                content=orjson.dumps(
                    {
                        "jsonrpc": "2.0",
                        "id": 1,
                        "method": "tools/call",
                        "params": {"name": "get_organization", "arguments": {"org_id": path.partition("/")[2]}},
                    }
                ),
                headers={
                    "traceparent": CALLER.replace(TRACE_ID, "f" * 32),
                    "content-type": "application/json",
                    "accept": "application/json, text/event-stream",
                    "mcp-protocol-version": "2025-06-18",
                },
            )
            assert CANARY in called.text
        wait_for(lambda: _is_there(collector), "each span of the change", 30, 0.05)
        wait_for(lambda: len(traced(collector, "f" * 32)) == 3, "the spans of the call", 30, 0.05)
        _check_trace(collector, changed.headers.get("x-command-id"), path.partition("/")[2])
        exemplars = [_scrape(part) for part in parts]
        assert [part.terminate() for part in reversed(parts)] == [0, 0, 0, 0]
        assert [part.errors() for part in parts] == [[], [], [], []]
    finally:
        for part in parts:
            part.close()

    request, tool, inner = (
        traced(collector, "f" * 32)[name]
        for name in ("POST /mcp", "execute_tool get_organization", "GET /v1/orgs/{org_id}")
    )
    assert (tool.parent_id, inner.parent_id) == (request.span_id, tool.span_id)
    for name, found in zip(
        ("orgs_worker_batch_seconds", "orgs_relay_transaction_seconds", "orgs_http_request_seconds"),
        exemplars[:3],
        strict=True,
    ):
        spans = {(span.trace_id, span.span_id) for span in collector.spans}
        assert found[name], f"{name} has no exemplar"
        assert set(found[name]) <= spans

    # Nothing of what was not asked for, and nothing personal.
    assert not {UNSAMPLED[3:35]} & {span.trace_id for span in collector.spans}
    for secret in (CANARY, "Acme", "quiet.com", "root", people.token("root")[:20]):
        assert secret.encode() not in collector.raw, secret
    assert {headers["authorization"] for headers in collector.headers} == {"Bearer collect"}

    events = await read_topic(settings, settings.kafka.topics.events)
    traces = [dict(event.headers() or []).get("traceparent") for event in events]
    send = traced(collector)["send org.update"]
    assert traces == [None, f"00-{TRACE_ID}-{send.span_id}-01".encode(), UNSAMPLED.encode()]


def _is_there(collector: Collector) -> bool:
    """Whether all spans of the change, and of its batches, have come; each process sends its own when it likes."""
    spans = traced(collector)
    send = spans.get("send org.update")
    links = [link for name in BATCHES for each in collector.named(name) for link in each.links]
    return len(spans) == 4 and send is not None and links.count((TRACE_ID, send.span_id)) == len(BATCHES)


def _check_trace(collector: Collector, command_id: str | None, org_id: str) -> None:
    spans = traced(collector)
    request, send = spans["PATCH /v1/orgs/{org_id}"], spans["send org.update"]
    decide, publish = spans["decide org.update"], spans["publish org.updated"]
    assert set(spans) == {request.name, send.name, decide.name, publish.name}
    assert request.parent_id == CALLER[36:52]
    assert send.parent_id == request.span_id
    assert {decide.parent_id, publish.parent_id} == {send.span_id}
    assert [span.roles for span in (request, send, decide, publish)] == [
        ("edge",), ("edge",), ("worker",), ("relay",)
    ]  # fmt: skip
    assert {span.service for span in spans.values()} == {"orgs-test"}
    assert request.began_ns <= send.began_ns <= decide.ended_ns <= publish.ended_ns
    assert request.attributes == {
        "http.request.method": "PATCH", "http.route": "/v1/orgs/{org_id}", "http.response.status_code": 200
    }  # fmt: skip
    about = {"orgs.command.id": command_id, "orgs.organization.id": org_id}
    decided = {"orgs.outcome": "applied", "orgs.code": 200, "orgs.position": 2, **about}
    assert (decide.attributes, publish.attributes) == (decided, decided)
    assert send.attributes == {"orgs.outcome": "applied", **about}
    for span, batch in zip((decide, publish), BATCHES, strict=True):
        [whole] = [each for each in collector.named(batch) if (TRACE_ID, send.span_id) in each.links]
        assert span.links == [(whole.trace_id, whole.span_id)]
        assert whole.trace_id != TRACE_ID
        assert whole.attributes["messaging.batch.message_count"] >= 1


def _scrape(part: ServiceProcess) -> dict[str, list[tuple[str, str]]]:
    """The exemplars by metric, as a scraper gets them; what dashboard and alerts name must be there."""
    asked = urllib.request.Request(f"{part.url()}/metrics", headers={"accept": "application/openmetrics-text"})
    with urllib.request.urlopen(asked, timeout=5) as answer:
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        text = answer.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for selector in (selector for each in grafana.named() for selector in each.selectors):
        family = families[re.sub("_(total|bucket)$", "", selector.metric)]
        samples = [sample for sample in family.samples if sample.name == selector.metric]
        assert all({matcher.label for matcher in selector.matchers} <= sample.labels.keys() for sample in samples)
        for matcher in selector.matchers:
            if matcher.label in ("why", "what", "reason"):  # the first of a kind must be an increase
                values = {sample.labels[matcher.label] for sample in samples}
                assert set(matcher.value.split("|")) <= values, selector
    found: dict[str, list[tuple[str, str]]] = {}
    for family in families.values():
        found[family.name] = [
            (sample.exemplar.labels["trace_id"], sample.exemplar.labels["span_id"])
            for sample in family.samples
            if sample.exemplar
        ]
    return found
