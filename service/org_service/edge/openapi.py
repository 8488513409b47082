"""Writes the OpenAPI document: `python -m org_service.edge.openapi docs/openapi.json`."""

import json
import sys
from pathlib import Path

from org_service.edge.edge import document
from org_service.settings import AuthSettings, Settings


def text() -> str:
    """The document as it is committed."""
    return json.dumps(document(Settings.model_construct(auth=AuthSettings())), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
