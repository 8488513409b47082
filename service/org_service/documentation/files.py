"""Which files are generated, and what is in each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from org_events import asyncapi, schemas
from org_service.documentation import openapi
from org_service.documentation.contract_tables import fill_tables
from org_service.documentation.metrics_page import metrics_page
from org_service.documentation.settings_page import settings_page
from org_service.documentation.sql_pages import FOLDER, PLAN_SUFFIX, sql_pages

ROOT: Final = Path(__file__).parents[3]
"""Of the checkout."""
_CONTRACT: Final = "docs/contract.md"


def generated() -> Mapping[str, str]:
    """The text of each generated file, by its path in the checkout."""
    return {
        **{f"events/org_events/schemas/{name}": text for name, text in schemas.documents().items()},
        "docs/asyncapi.json": schemas.to_text(asyncapi.document()),
        "docs/openapi.json": openapi.document(),
        "docs/settings.md": settings_page(),
        "docs/metrics.md": metrics_page(),
        **sql_pages(_planned()),
        _CONTRACT: fill_tables((ROOT / _CONTRACT).read_text(encoding="utf-8")),
    }


def _planned() -> set[str]:
    folder = ROOT / FOLDER
    return {plan.relative_to(folder).as_posix().removesuffix(PLAN_SUFFIX) for plan in folder.rglob(f"*{PLAN_SUFFIX}")}
