"""The committed generated files are what the code makes."""

import pytest

from org_events.schemas import FOLDER
from org_service.documentation.files import ROOT, make_files

pytestmark = pytest.mark.contract

GENERATED = make_files()


@pytest.mark.parametrize("path", GENERATED)
def test_a_generated_file_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == GENERATED[path], "run `make generate`"


def test_every_schema_file_is_generated() -> None:
    committed = {str(path.relative_to(ROOT)) for path in FOLDER.glob("*.json")}
    assert committed <= GENERATED.keys(), "a schema without a model is not removed by `make generate`"
