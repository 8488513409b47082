"""Writes every generated file into the checkout: `make generate`."""

from org_service.documentation.files import ROOT, generated

for path, text in generated().items():
    (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
    (ROOT / path).write_text(text, encoding="utf-8")
