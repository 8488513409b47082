"""The docs page and the document, from the running service alone."""

import re

import pytest

from tests.support import plain_http
from tests.support.documented import DOCUMENT
from tests.support.edge import Site

pytestmark = pytest.mark.integration


def test_the_document_needs_no_token(site: Site) -> None:
    answer = plain_http.get(f"{site.url}/openapi.json")
    assert answer.status_code == 200
    assert answer.json() == DOCUMENT


def test_the_page_and_all_it_loads_come_from_the_service(site: Site) -> None:
    page = plain_http.get(f"{site.url}/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 4
    assert not [each for each in loaded if "//" in each]
    for each in loaded:
        plain = plain_http.get(f"{site.url}/{each}", headers={"accept-encoding": "identity"})
        packed = plain_http.get(f"{site.url}/{each}", headers={"accept-encoding": "gzip"})
        assert (plain.status_code, packed.status_code) == (200, 200)
        assert plain.content == packed.content
        assert len(plain.content) > 100


def test_health_and_metrics_have_a_port_of_their_own(site: Site) -> None:
    with site.client("root") as root:
        root.get("/v1/orgs")
        for page in ("livez", "readyz", "metrics"):
            assert plain_http.get(f"{site.url}/{page}").status_code == 401
            assert root.get(f"/{page}").status_code == 404
    assert plain_http.get(f"{site.health_url}/livez").json()["status"] == "alive"
    assert plain_http.get(f"{site.health_url}/readyz").json()["status"] == "ready"
    metrics = plain_http.get(f"{site.health_url}/metrics").text
    assert 'orgs_http_requests_total{method="GET",route="/v1/orgs",status="200"}' in metrics
    assert 'orgs_http_request_seconds_count{method="GET",route="/v1/orgs"}' in metrics
    assert plain_http.get(f"{site.health_url}/v1/orgs").status_code == 404
