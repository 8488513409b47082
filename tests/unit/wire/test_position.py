"""The value of a position record."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from org_service.wire.position import NotAPosition, Position, read_position


def test_it_survives_writing_and_reading() -> None:
    position = Position(position=41, command_id=UUID(int=1), recorded_at=datetime(2026, 3, 1, tzinfo=UTC))
    assert read_position(position.to_value()) == position


def test_an_operator_may_write_a_number_alone_and_the_future_may_add_members() -> None:
    assert read_position(b'{"position": 41}') == Position(position=41)
    assert read_position(b'{"position": 41, "command_id": null, "shard": 3}') == Position(position=41)


@pytest.mark.parametrize("value", [b"", b"41", b"{}", b'{"position": -1}', b'{"position": "far"}', b"\xff"])
def test_an_invalid_position_is_never_guessed(value: bytes) -> None:
    with pytest.raises(NotAPosition):
        read_position(value)
