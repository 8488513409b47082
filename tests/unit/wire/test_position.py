"""The value of a position record."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from org_service.wire.position import (
    NotAPosition,
    Partitioning,
    Position,
    TopicEnds,
    by_topic,
    read_position,
    read_published,
)


def test_it_survives_writing_and_reading() -> None:
    position = Position(position=41, command_id=UUID(int=1), recorded_at=datetime(2026, 3, 1, tzinfo=UTC))
    assert read_position(position.to_value()) == position


def test_it_says_the_ends_of_partitions_what_was_looked_at_and_what_is_missing() -> None:
    ends = {"orgs.events": TopicEnds(UUID(int=2), [7, None, 40]), "orgs.state": TopicEnds(UUID(int=3), [0, 1, 2])}
    looked, behind = by_topic({("orgs.events", 2): 38}.items()), by_topic({("orgs.state", 2): 17}.items())
    position = Position(position=41, ends=ends, looked=looked, behind=behind)
    value = position.to_value()
    assert value == (
        b'{"position":41,"ends":{"orgs.events":["00000000-0000-0000-0000-000000000002",[7,null,40]],'
        b'"orgs.state":["00000000-0000-0000-0000-000000000003",[0,1,2]]},"looked":{"orgs.events":{"2":38}},'
        b'"behind":{"orgs.state":{"2":17}}}'
    )
    assert read_position(value) == position
    published = read_published(value, 1_800_000_000_000)
    assert (published.ends, published.looked, published.behind) == (ends, looked, behind)
    assert by_topic([]) is None


def test_a_record_of_an_earlier_release_says_nothing_of_ends() -> None:
    value = (
        b'{"position":8,"command_id":"00000000-0000-0000-0000-000000000008","recorded_at":"2026-03-01T12:00:00.008000Z",'
        b'"partitions":3,"grown_from":null,"grown_at":null}'
    )
    published = read_published(value, 1_800_000_000_000)
    assert (published.position, published.partitioning, published.ends) == (8, Partitioning(3), None)


def test_an_operator_may_write_a_number_alone_and_the_future_may_add_members() -> None:
    assert read_position(b'{"position": 41}') == Position(position=41)
    assert read_position(b'{"position": 41, "command_id": null, "shard": 3}') == Position(position=41)


@pytest.mark.parametrize("value", [b"", b"41", b"{}", b'{"position": -1}', b'{"position": "far"}', b"\xff"])
def test_an_invalid_position_is_never_guessed(value: bytes) -> None:
    with pytest.raises(NotAPosition):
        read_position(value)
