"""Every expression of the dashboard and of the alert rules."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.support.promql import Named, parse

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"


def alerts() -> list[dict[str, Any]]:
    """The rules."""
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """The panels that show something."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, tuple[str, str]]:
    """By where it is: the expression, and the text that shows its result."""
    found = {f"alert {rule['alert']}": (rule["expr"], rule["annotations"]["summary"]) for rule in alerts()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"panel {panel['title']} {target['refId']}"] = (target["expr"], target["legendFormat"])
    return found


def named() -> list[Named]:
    """What all of them name."""
    return [parse(expression) for expression, _ in expressions().values()]
