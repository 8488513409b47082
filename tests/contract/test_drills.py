"""What a drill names is there: alert rules and their metrics, headings of the runbook, the table of the page."""

import re
from typing import Any

import pytest

from org_service.drilling.drills import DRILLS
from org_service.drilling.looking import Metric
from tests.contract.test_references import ROOT, anchors
from tests.support.grafana import alerts

pytestmark = pytest.mark.contract

PAGE = ROOT / "docs" / "operating.md"
RULES = {rule["alert"]: rule for rule in alerts()}


class AnyFacts(dict[str, Any]):
    """Whatever a drill remembers."""

    def __missing__(self, key: str) -> Any:
        return {f"{key} 1": "one", f"{key} 2": "two"}


@pytest.mark.parametrize("name", DRILLS)
def test_a_drill_raises_alerts_that_lead_to_the_runbook(name: str) -> None:
    drill = DRILLS[name]
    assert drill.runbook in anchors(PAGE)
    for symptom in drill.symptoms(AnyFacts()):
        if symptom.alert is not None:
            rule = RULES[symptom.alert]
            assert isinstance(symptom, Metric)
            assert symptom.name in rule["expr"]


def test_the_page_lists_every_drill_and_no_other() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Drills\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([a-z]+-[a-z]+)` \|", section, re.MULTILINE) == list(DRILLS)
