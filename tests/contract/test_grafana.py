"""The dashboard and the alert rules name what is there: metrics, labels, values of enums, places of the runbook."""

import re
from enum import StrEnum
from http import HTTPStatus
from typing import cast

import pytest
from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from org_service.domain.reasons import (
    AcceptReason,
    LossReason,
    ParkReason,
    RepeatReason,
    SkipReason,
    SpanFate,
    TripReason,
)
from org_service.edge.app import METHODS
from org_service.operate.verifying.report import Verdict
from org_service.telemetry import metrics
from tests.contract.test_references import ROOT, anchors
from tests.support.grafana import alerts, expressions, panels
from tests.support.promql import Matcher, Selector, parse

pytestmark = pytest.mark.contract

VALUES: dict[tuple[str, str], type[StrEnum] | list[str]] = {
    ("orgs_parked_total", "reason"): ParkReason,
    ("orgs_records_skipped_total", "why"): SkipReason,
    ("orgs_worker_batch_repeats_total", "why"): RepeatReason,
    ("orgs_worker_breaker_trips_total", "why"): TripReason,
    ("orgs_commands_lost_total", "why"): LossReason,
    ("orgs_http_accepted_total", "why"): AcceptReason,
    ("orgs_trace_spans_total", "what"): SpanFate,
    ("orgs_verifications_total", "verdict"): Verdict,
    ("orgs_http_requests_total", "status"): [str(status.value) for status in HTTPStatus],
    ("orgs_http_requests_total", "method"): [*METHODS, "HEAD", "other"],
    ("orgs_http_request_seconds_bucket", "method"): [*METHODS, "HEAD", "other"],
}
"""What a label can be, where a rule or a panel asks for a value of it."""
TARGET = frozenset({"instance", "job"})
"""Labels that Prometheus itself puts on each series."""
EXPRESSIONS = expressions()


def declared() -> dict[str, frozenset[str]]:
    """The labels of each series, by its name."""
    found: dict[str, frozenset[str]] = {}
    for metric in vars(metrics).values():
        if not isinstance(metric, Counter | Gauge | Histogram):
            continue
        name = next(iter(metric.describe())).name
        labels = frozenset(cast("tuple[str, ...]", metric._labelnames))
        if isinstance(metric, Histogram):
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[f"{name}_total" if isinstance(metric, Counter) else name] = labels
    for family in REGISTRY.collect():
        for sample in family.samples:
            if sample.name.startswith(("process_", "python_")):
                found[sample.name] = frozenset(sample.labels)
    return found


DECLARED = declared()


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_an_expression_names_what_is_there(where: str) -> None:
    expression, shown = EXPRESSIONS[where]
    named = parse(expression)
    assert named.selectors, expression
    for selector in named.selectors:
        labels = DECLARED.get(selector.metric)
        assert labels is not None, f"{selector.metric} is no metric"
        assert named.grouped <= labels | TARGET, f"{selector.metric} has {sorted(labels)}"
        # What only grows is read as a rate, what goes up and down as it is.
        assert selector.counted == selector.metric.endswith(("_total", "_bucket", "_sum", "_count")), expression
        for matcher in selector.matchers:
            assert matcher.label in labels, f"{selector.metric} has {sorted(labels)}"
            _check_value(selector, matcher)
    used = set(re.findall(r"\{\{ ?(?:\$labels\.)?([a-z]+) ?\}\}", shown))
    assert used <= named.grouped | _kept(expression), f"{shown} shows what the result doesn't have"


def _kept(expression: str) -> set[str]:
    """Labels of what is not aggregated."""
    return set() if re.search(r"\b(sum|max|min|count|avg)\b", expression) else set(TARGET)


def _check_value(selector: Selector, matcher: Matcher) -> None:
    known = [str(value) for value in VALUES[selector.metric, matcher.label]]
    for value in matcher.value.split("|") if "~" in matcher.operator else [matcher.value]:
        pattern = value if "~" in matcher.operator else re.escape(value)
        assert any(re.fullmatch(pattern, each) for each in known), f"{matcher.label} is never {value}: {known}"


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_why_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    about = rule["annotations"]
    assert about["summary"].endswith(".")
    assert about["threshold"].endswith("."), "a threshold without a reason is a bug"
    page, _, anchor = about["runbook"].partition("#")
    assert page == "docs/operating.md"
    assert anchor in anchors(ROOT / page)
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_names_are_unique_and_panels_do_not_overlap() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize(
    "broken",
    [
        "sum(orgs_parked_total", "sum(orgs_parked_total))", "rate(orgs_parked_total)", "orgs_parked_total[5m]",
        "rate(orgs_parked_total[soon])", 'orgs_relay_leader{why="a"', "orgs_relay_leader{why=}",
        "sum by orgs_relay_leader ;",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_not_taken_for_one(broken: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(broken)


def test_every_metric_that_counts_trouble_is_shown() -> None:
    shown = {selector.metric for expression, _ in EXPRESSIONS.values() for selector in parse(expression).selectors}
    shown |= {name.rpartition("_")[0] for name in shown if name.endswith("_bucket")}
    left_out = {
        name for name in DECLARED if name.startswith("orgs_") and not name.endswith(("_bucket", "_sum", "_count"))
    }
    assert left_out - shown == NOT_SHOWN


NOT_SHOWN: set[str] = {"orgs_verified_seconds", "orgs_verified_differences"}
"""Metrics without a panel; `orgs status` and `orgs verify` say more."""
