"""What becomes a span, and what a collector that is away, slow or mad can do to the service: nothing."""

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.trace import NoOpTracer
from prometheus_client import REGISTRY
from pydantic import ValidationError
from structlog.testing import capture_logs

from org_service.domain.reasons import SpanFate
from org_service.errors import ConfigurationError
from org_service.settings import TracingSettings
from org_service.telemetry import span_export
from org_service.telemetry.tracing import LINKS_MAX, TRACEPARENT, Tracing, active, end_request, tracing
from org_service.wire.ids import read_traceparent
from tests.support.collector import (
    Collector,
    answer_endlessly,
    answer_never,
    answer_nonsense,
    answer_status,
)
from tests.support.waiting import until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = TRACE[:-1] + "0"
SPANS_OF_A_FLOOD = 2_000


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as started:
        yield started


@asynccontextmanager
async def traced(settings: TracingSettings) -> AsyncIterator[Tracing]:
    async with tracing(settings, ["edge"]):
        found = active()
        assert found is not None
        yield found
    assert active() is None


def fates() -> dict[str, float]:
    return {fate: REGISTRY.get_sample_value("orgs_trace_spans_total", {"what": fate}) or 0 for fate in SpanFate}


def request(tracing: Tracing, traceparent: str | None, *, inside: bool = False) -> str | None:
    """A request from beginning to end; what it hands on."""
    span = tracing.begin_request("GET", traceparent, time.perf_counter(), inside=inside)
    if span is not None:
        end_request(span, "GET", "/v1/orgs", 200)
    return TRACEPARENT.get()


async def test_without_an_endpoint_nothing_is_traced() -> None:
    async with tracing(TracingSettings(), ["edge"]):
        assert active() is None


async def test_a_sampled_request_is_a_span_in_the_callers_trace(collector: Collector) -> None:
    async with traced(collector.settings(ratio=0)) as spans:
        handed_on = request(spans, TRACE)
    [span] = collector.spans
    assert (span.trace_id, span.parent_id, span.name) == (TRACE[3:35], TRACE[36:52], "GET /v1/orgs")
    assert handed_on == f"00-{TRACE[3:35]}-{span.span_id}-01"


@pytest.mark.parametrize("traceparent", [UNSAMPLED, None])
async def test_what_is_not_sampled_is_handed_on_as_it_came(collector: Collector, traceparent: str | None) -> None:
    async with traced(collector.settings(ratio=0)) as spans:
        assert request(spans, traceparent) == traceparent
    assert collector.spans == []


async def test_the_ratio_is_for_requests_without_a_context(collector: Collector) -> None:
    async with traced(collector.settings(ratio=1)) as spans:
        handed_on = request(spans, None)
        request(spans, UNSAMPLED)
        request(spans, None, inside=True)
    [span] = collector.spans
    assert span.parent_id == ""
    assert handed_on == f"00-{span.trace_id}-{span.span_id}-03"  # sampled, and the trace id is a random one


async def test_no_caller_can_have_everything_traced(collector: Collector) -> None:
    async with traced(collector.settings(ratio=1, sampled_per_s_max=5)) as spans:
        began = time.monotonic()
        handed_on = [request(spans, TRACE if number % 2 else None) for number in range(1_000)]
        seconds = time.monotonic() - began
    assert 5 <= len(collector.spans) <= 5 + 5 * seconds + 1
    # What is not traced here is not for the next one to trace either.
    assert handed_on[-1] == UNSAMPLED
    assert handed_on.count(None) + handed_on.count(UNSAMPLED) == 1_000 - len(collector.spans)


@pytest.mark.parametrize(
    "header",
    [
        "", "-", "00", TRACE[:-1], TRACE + "-", TRACE.upper(), "ff" + TRACE[2:], TRACE.replace("7651", "\0\0\0\0"),
        f"00-{'0' * 32}-{'b' * 16}-01", f"00-{'a' * 32}-{'0' * 16}-01", "0" * 100_000,
        f"00-{chr(1633) * 32}{TRACE[35:]}",
        f"01{TRACE[2:]}", f"00-{'f' * 32}-{'f' * 16}-ff", f"fe-{'f' * 32}-{'f' * 16}-00",
    ],
)  # fmt: skip
async def test_a_hostile_header_never_raises(collector: Collector, header: str) -> None:
    read = read_traceparent(header)
    async with traced(collector.settings(ratio=0)) as spans:
        request(spans, read)
        batch = spans.begin_commands(time.perf_counter())
        if batch.may_take(read):
            batch.add("decide", read, {})
        batch.end({})
    asked = read is not None and read[-1] in "1f"
    assert len(collector.spans) == (3 if asked else 0)


async def test_a_batch_is_one_span_with_a_link_to_each_sampled_command(collector: Collector) -> None:
    contexts = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 4)]
    async with traced(collector.settings()) as spans:
        batch = spans.begin_commands(time.perf_counter())
        for number, traceparent in enumerate([*contexts, UNSAMPLED, None]):
            if batch.may_take(traceparent):
                batch.add("decide org.update", traceparent, {"orgs.position": number})
        exemplar = batch.end({"messaging.batch.message_count": 5})
    [whole] = collector.named("process commands")
    commands = collector.named("decide org.update")
    assert exemplar == {"trace_id": whole.trace_id, "span_id": whole.span_id}
    assert whole.links == [(each[3:35], each[36:52]) for each in contexts]
    assert [(span.trace_id, span.parent_id) for span in commands] == whole.links
    assert [span.links for span in commands] == [[(whole.trace_id, whole.span_id)]] * 3
    assert [span.attributes for span in commands] == [{"orgs.position": number} for number in range(3)]


async def test_a_batch_has_a_bounded_number_of_links(collector: Collector) -> None:
    async with traced(collector.settings(sampled_per_s_max=10_000)) as spans:
        batch = spans.begin_events(time.perf_counter())
        for _ in range(LINKS_MAX * 3):
            if batch.may_take(TRACE):
                batch.add("publish", TRACE, {}, began_ns=time.time_ns() + 10**12)
        batch.end({})
    assert len(collector.named("publish")) == len(collector.named("publish outcomes")[0].links) == LINKS_MAX
    assert all(span.began_ns <= span.ended_ns for span in collector.spans)


async def test_a_defect_of_the_sdk_does_not_reach_a_batch_that_is_committed(collector: Collector) -> None:
    class Broken(NoOpTracer):
        def start_span(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("a defect")

    batch = Tracing(Broken(), collector.settings()).begin_commands(time.perf_counter())
    assert batch.may_take(TRACE)
    batch.add("decide", TRACE, {})
    assert batch.end({}) is None


async def test_a_batch_without_a_sampled_command_is_no_span(collector: Collector) -> None:
    async with traced(collector.settings()) as spans:
        batch = spans.begin_commands(time.perf_counter())
        assert not batch.may_take(UNSAMPLED)
        assert batch.end({}) is None
    assert collector.spans == []


def away(_: Any) -> None:
    raise AssertionError("nobody listens")


@pytest.mark.parametrize("answer", [answer_never, answer_nonsense, answer_endlessly, answer_status(503), away])
async def test_a_sick_collector_costs_spans_and_nothing_else(
    answer: Callable[[Any], None],
) -> None:
    with Collector(answer) as sick, capture_logs() as logged:
        settings = sick.settings(queue_spans_max=256, sampled_per_s_max=10_000, timeout_s=0.3)
        if answer is away:
            settings = settings.model_copy(update={"endpoint": "http://127.0.0.1:1/v1/traces"})
        before = fates()
        async with traced(settings) as spans:
            began = time.process_time()
            for number in range(SPANS_OF_A_FLOOD):
                request(spans, TRACE)
                if number == SPANS_OF_A_FLOOD // 2 and answer is not away:
                    await until(sick.asked.is_set)  # the flood goes on while a batch is on its way
            spent_s = time.process_time() - began
            ending = time.monotonic()
        ended_s = time.monotonic() - ending
    became = {fate: count - before[fate] for fate, count in fates().items()}
    assert sum(became.values()) == SPANS_OF_A_FLOOD
    # Of a 200 the status is what counts, however mad its body.
    lost = became["queue_full"] + became["left"] + became["rejected"]
    assert lost == SPANS_OF_A_FLOOD - became["exported"]
    assert became["queue_full"] >= SPANS_OF_A_FLOOD - 256 * 2 - span_export.BATCH_SPANS_MAX
    assert ended_s < span_export.FLUSH_S + 2
    assert spent_s < 5
    said = [line["event"] for line in logged].count("spans are not exported; the service continues without")
    assert said == (answer is not answer_endlessly)


async def test_the_end_waits_a_second_for_an_export_on_its_way_whatever_its_time_out() -> None:
    with Collector(answer_never) as silent:
        async with traced(silent.settings(timeout_s=60)) as spans:
            request(spans, TRACE)
            await until(silent.asked.is_set)
            ending = time.monotonic()
        assert time.monotonic() - ending < span_export.FLUSH_S + 5


async def test_a_collector_that_restarts_loses_no_span() -> None:
    with Collector(answer_status(503)) as collector, capture_logs() as logged:
        async with traced(collector.settings()) as spans:
            request(spans, TRACE)
            await until(collector.asked.is_set)
            collector.answer = None
            await until(lambda: bool(collector.spans))
    assert len(collector.spans) == 1
    assert "spans are exported again" in [line["event"] for line in logged]


async def test_what_a_collector_rejects_is_dropped(collector: Collector) -> None:
    collector.answer = answer_status(400)
    before = fates()
    async with traced(collector.settings()) as spans:
        request(spans, TRACE)
        await until(lambda: fates()["rejected"] > before["rejected"])
    assert fates()["rejected"] - before["rejected"] == 1


async def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match=r"org-service\[tracing\]"):
        async with tracing(TracingSettings(endpoint="http://127.0.0.1:4318/v1/traces"), ["edge"]):
            pass
    assert active() is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "collector:4318"}, {"endpoint": "ftp://collector/v1"}, {"ratio": 1.1}, {"ratio": -1},
        {"headers": "authorization: Bearer secret"}, {"headers": '["secret"]'}, {"headers": '{"a": 1}'},
        {"headers": '{"a": "secret\\r\\nb: c"}'}, {"headers": '{"a b": "secret"}'}, {"headers": '{"a": "secr\u00e9t"}'},
        {"resource": '["name"]'}, {"resource": '["=value"]'}, {"resource": "name=value"},
    ],
)  # fmt: skip
def test_settings_that_can_not_work_are_rejected_without_quoting_a_secret(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as raised:
        TracingSettings.model_validate(wrong)
    if "headers" in wrong:
        assert all("secret" not in error["msg"] for error in raised.value.errors())
