"""Holds answers against the committed OpenAPI document: status, media type, headers, body."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
from jsonschema import Draft202012Validator, FormatChecker

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())
_PATHS = {
    re.compile(re.sub(r"\{[^}]+\}", "[^/]+", template) + "$"): operations
    for template, operations in DOCUMENT["paths"].items()
}


@cache
def _validator(reference: str) -> Draft202012Validator:
    schema = {"$ref": reference, "components": DOCUMENT["components"]}
    return Draft202012Validator(schema, format_checker=FormatChecker())


def check(response: httpx2.Response) -> None:
    """Raises where an answer of the API isn't as its operation is documented.

    What is no operation (a path or a method nobody documented) must be a problem at least.
    """
    method = {"HEAD": "GET"}.get(response.request.method, response.request.method).lower()
    operations = next((found for path, found in _PATHS.items() if path.match(response.request.url.path)), {})
    operation = operations.get(method)
    if operation is None:
        assert response.status_code in (401, 404, 405, 413, 429), response.status_code
        described = {
            "headers": {"Allow": {}} if response.status_code == 405 else {},
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/HttpProblem"}}},
        }
    else:
        described = operation["responses"].get(str(response.status_code))
        assert described is not None, f"{response.status_code} isn't documented for {method} {response.request.url}"
    for name in ("Allow", "WWW-Authenticate"):
        assert name not in described.get("headers", {}) or name in response.headers, f"{name} is missing"
    content = described.get("content", {})
    if not content or response.request.method == "HEAD":
        assert response.content == b""
        return
    media_type = response.headers["content-type"]
    assert media_type in content, media_type
    _validator(content[media_type]["schema"]["$ref"]).validate(response.json())
    if media_type == "application/problem+json":
        problem = response.json()
        assert problem["status"] == response.status_code
        assert problem["type"].startswith("urn:orgs:problem:")
