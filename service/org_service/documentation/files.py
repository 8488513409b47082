"""Which files are generated, and what is in each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from org_events import asyncapi, schemas
from org_service.documentation import openapi
from org_service.documentation.contract_page import make_contract_page
from org_service.documentation.contract_tables import fill_tables
from org_service.documentation.golden_messages import make_golden_messages
from org_service.documentation.metrics_page import make_metrics_page
from org_service.documentation.public_surface import make_surface
from org_service.documentation.settings_page import make_settings_page
from org_service.documentation.sql_pages import FOLDER, PLAN_SUFFIX, make_sql_pages

ROOT: Final = Path(__file__).parents[3]
"""Of the checkout."""
_CONTRACT: Final = "docs/contract.md"


def make_files() -> Mapping[str, str]:
    """The text of each generated file, by its path in the checkout."""
    golden = make_golden_messages()
    return {
        **{f"events/org_events/schemas/{name}": text for name, text in schemas.make_documents().items()},
        "docs/asyncapi.json": schemas.to_text(asyncapi.make_document()),
        "events/org_events/testing/golden/latest.json": golden,
        "events/surface.txt": make_surface(),
        "docs/contract.html": make_contract_page(golden),
        "docs/openapi.json": openapi.make_document(),
        "docs/settings.md": make_settings_page(),
        "docs/metrics.md": make_metrics_page(),
        **make_sql_pages(_planned()),
        _CONTRACT: fill_tables((ROOT / _CONTRACT).read_text(encoding="utf-8")),
    }


def _planned() -> set[str]:
    folder = ROOT / FOLDER
    return {plan.relative_to(folder).as_posix().removesuffix(PLAN_SUFFIX) for plan in folder.rglob(f"*{PLAN_SUFFIX}")}
