"""Writes the schema files beside this one: `python -m org_events.schemas`."""

from org_events.schemas import FOLDER, documents

for name, text in documents().items():
    (FOLDER / name).write_text(text, encoding="utf-8")
