"""Messages as every release wrote them: the document describes them, and today's readers read them."""

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from org_events import OrganizationEvent, Result, Topics
from org_events.organization import Organization
from org_events.testing import LATEST, Message, golden_messages, on_topic, releases
from org_service.domain.requests import Request
from org_service.wire import commands, facts
from tests.contract.events.described import check
from tests.contract.events.gate import RELEASED

pytestmark = pytest.mark.contract

TOPICS = Topics()
EVERY = [message for release in releases() for message in golden_messages(release)]


def test_every_release_left_its_messages() -> None:
    assert {LATEST, *(folder.name for folder in RELEASED.iterdir() if folder.is_dir())} == {*releases()}


def test_every_golden_message_is_what_the_document_says() -> None:
    for message in EVERY:
        check(message.message, message.headers, message.value)


def test_every_golden_message_is_read_by_the_models_of_today() -> None:
    for message in on_topic(TOPICS.events, EVERY):
        event = OrganizationEvent.model_validate_json(message.value or b"")
        assert str(event.version) == message.header["ce_orgversion"]
    for message in on_topic(TOPICS.results, EVERY):
        assert Result.model_validate_json(message.value or b"").model_dump(mode="json") == message.body
    for message in on_topic(TOPICS.state, EVERY):
        if message.value is not None:
            assert Organization.model_validate_json(message.value).id == UUID(message.key.decode())


def test_every_golden_command_and_fact_is_accepted_by_the_service_of_today() -> None:
    for message in on_topic(TOPICS.commands, EVERY):
        read = commands.read(record(message))
        assert isinstance(read, Request)
        assert str(read.command_id) == message.header["ce_id"]
    for topic, kind in facts.map_kinds(TOPICS).items():
        read_facts = [facts.read_fact(kind, record(message)) for message in on_topic(topic, EVERY)]
        assert len(read_facts) >= 2
        assert {type(each) for each in read_facts} == {facts.Fact}


def record(message: Message) -> Any:
    """As a consumer of the service has it."""
    return SimpleNamespace(
        topic=message.topic, partition=0, offset=0, key=message.key, value=message.value, headers=message.headers
    )
