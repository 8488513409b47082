"""The committed reference pages say what the code does."""

from pathlib import Path

import pytest

from org_service.documentation import PAGES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.contract
@pytest.mark.parametrize("name", PAGES)
def test_the_reference_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run `python -m org_service.documentation`"
