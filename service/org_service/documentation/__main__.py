"""Writes every generated file into the checkout: `make generate`."""

from org_service.documentation.files import ROOT, make_files

for path, text in make_files().items():
    (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
    (ROOT / path).write_text(text, encoding="utf-8")
