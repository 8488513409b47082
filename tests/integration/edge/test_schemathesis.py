"""Whatever fits the OpenAPI document, and much that doesn't, gets an answer that the document has."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from org_service.edge.http.openapi import ORG_ID
from tests.support.edge import Site

pytestmark = pytest.mark.integration

SEED = 20_261_124
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
    "use_after_free",
)


ACTIONS = r"^/v1/orgs/\{org_id\}/"
"""Half of the operations; each half is a process of its own, because generating takes more time than answering."""


@pytest.mark.timeout(180)
def test_every_answer_is_documented(site: Site, tmp_path: Path) -> None:
    site.create("Examples", id=ORG_ID)
    halves = [f"--include-path-regex={ACTIONS}", f"--exclude-path-regex={ACTIONS}"]
    running = [
        subprocess.Popen(
            [
                Path(sys.executable).with_name("schemathesis"),
                "run",
                f"{site.url}/openapi.json",
                half,
                f"--header=Authorization: Bearer {site.people.token('root')}",
                f"--checks={','.join(CHECKS)}",
                "--phases=examples,coverage,fuzzing",
                "--max-examples=4",
                f"--seed={SEED}",
                "--generation-database=none",
                "--continue-on-failure",
                # Of Python 3.11's ast.parse, which Hypothesis calls, two at a time confuse each other (gh-106905).
                "--workers=1",
                "--no-color",
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for half in halves
    ]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(each[-15_000:] for each in said)
    assert sum(int(re.findall(r"(\d+) passed", each)[-1]) for each in said) > 1_000, said
