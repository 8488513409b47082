"""A publisher's own trace: each command is a span in it, and the header names that span."""

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from org_events import Topics
from org_events.publishing import OrganizationClient
from org_events.publishing.errors import OutcomeUnknown
from tests.integration.client.answering import AnsweringService, result
from tests.integration.client.test_calls import ORG
from tests.support.waiting import until

pytestmark = pytest.mark.integration

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What the publisher's SDK exports."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


async def test_a_command_is_a_span_until_its_outcome_and_its_header_names_it(
    service: AnsweringService, orgs: OrganizationClient, exported: InMemorySpanExporter
) -> None:
    with trace.get_tracer("billing").start_as_current_span("invoice") as invoice:
        await orgs.update(ORG, name="Acme")
        await orgs.delete(ORG)
    await until(lambda: len(exported.get_finished_spans()) == 3)
    update, delete, _ = exported.get_finished_spans()
    assert [update.name, delete.name] == ["send org.update", "send org.delete"]
    for span, received in zip((update, delete), service.received, strict=True):
        assert span.context is not None
        assert span.parent is not None
        assert span.parent.span_id == invoice.get_span_context().span_id
        assert span.attributes == {
            "messaging.system": "kafka", "orgs.command.id": received.command_id,
            "orgs.outcome": "applied", "orgs.code": 200, "orgs.position": 1,
        }  # fmt: skip
        ids = f"{span.context.trace_id:032x}-{span.context.span_id:016x}"
        assert received.headers["traceparent"].decode()[3:52] == ids


async def test_a_span_ends_when_nobody_waits_for_the_outcome_any_more(
    service: AnsweringService, orgs: OrganizationClient, exported: InMemorySpanExporter
) -> None:
    service.answer = lambda _: None
    with pytest.raises(OutcomeUnknown):
        await orgs.update(ORG, name="Acme", timeout_s=0.3)
    await until(lambda: len(exported.get_finished_spans()) == 1)
    [span] = exported.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "timeout"
    service.answer = result


async def test_a_callable_decides_the_header_alone(
    service: AnsweringService, bootstrap_servers: str, topics: Topics, exported: InMemorySpanExporter
) -> None:
    async with OrganizationClient(
        bootstrap_servers=bootstrap_servers, source="/billing", topics=topics, traceparent=lambda: TRACE
    ) as orgs:
        await orgs.delete(ORG)
    assert service.received[0].headers["traceparent"] == TRACE.encode()
    assert not exported.get_finished_spans()


async def test_what_the_publisher_does_not_sample_is_sent_with_its_context(
    service: AnsweringService, orgs: OrganizationClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await orgs.delete(ORG)
    monkeypatch.setattr(trace, "get_tracer", TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).get_tracer)
    await orgs.restore(ORG)
    without, unsampled = service.received
    assert "traceparent" not in without.headers  # no SDK, no trace
    assert int(unsampled.headers["traceparent"][-2:], 16) % 2 == 0


def test_the_client_needs_no_opentelemetry() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from uuid import uuid4\n"
        "from org_events.publishing import OrganizationClient\n"
        "from org_events.publishing.tracing import sending\n"
        "with sending('org.update', uuid4()) as span: assert span.traceparent is None\n"
        "OrganizationClient(bootstrap_servers='127.0.0.1:9', source='/x')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
