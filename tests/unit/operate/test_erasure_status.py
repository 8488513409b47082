"""When Kafka will have removed what is left on a topic, by its settings."""

from datetime import UTC, datetime, timedelta

from org_service.operate.erasure_status import tell_end

NEWEST = datetime(2026, 1, 10, tzinfo=UTC)
DELETED = datetime(2026, 1, 5, tzinfo=UTC)
DAY_MS = "86400000"
NEVER = str(2**63 - 1)


def config(policy: str, **more: str) -> dict[str, str]:
    settings = {"cleanup.policy": policy, "segment.ms": DAY_MS, "retention.ms": DAY_MS, "max.compaction.lag.ms": DAY_MS}
    return settings | {name.replace("_", "."): value for name, value in more.items()}


def test_a_record_goes_with_its_segment_which_was_full_a_day_later() -> None:
    soon = NEWEST + timedelta(hours=1)
    assert tell_end("t", config("delete"), NEWEST, DELETED, soon) == (NEWEST + timedelta(days=2), None)


def test_what_a_tombstone_replaced_goes_within_the_lag_of_compaction() -> None:
    soon = DELETED + timedelta(hours=1)
    assert tell_end("t", config("compact"), NEWEST, DELETED, soon) == (DELETED + timedelta(days=2), None)


def test_settings_without_an_end_are_named() -> None:
    kept = tell_end("t", config("delete", retention_ms="-1"), NEWEST, DELETED, NEWEST)
    assert kept[0] is None
    assert "set retention.ms of t" in (kept[1] or "")
    compacted = tell_end("t", config("compact", max_compaction_lag_ms=NEVER), None, None, NEWEST)
    assert compacted[0] is None
    assert "set max.compaction.lag.ms of t" in (compacted[1] or "")


def test_of_two_policies_the_first_to_act_counts() -> None:
    both = config("compact,delete", max_compaction_lag_ms=NEVER)
    assert tell_end("t", both, NEWEST, DELETED, NEWEST) == (NEWEST + timedelta(days=2), None)


def test_what_is_late_is_explained() -> None:
    end, advice = tell_end("t", config("delete"), NEWEST, DELETED, NEWEST + timedelta(days=3))
    assert end == NEWEST + timedelta(days=2)
    assert "due" in (advice or "")


def test_where_nothing_is_left_there_is_nothing_to_say() -> None:
    assert tell_end("t", config("delete"), None, None, NEWEST) == (None, None)
