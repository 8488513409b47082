"""The packaged page: what it is made of, and how it shows what comes from outside."""

import re
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from starlette.requests import Request

import org_service.console
from org_service.console import overview
from org_service.console.charts import HEIGHT, WIDTH, draw
from org_service.console.console import Console
from org_service.console.oidc import Begun
from org_service.console.pages import page
from org_service.console.requests import Rejected, read_form, safe_target
from org_service.console.sampling import Sample
from org_service.operate.status import Part, Status
from org_service.settings import ConsoleSettings, DatabaseSettings, Settings

FOLDER = Path(org_service.console.__file__ or "").parent
TEMPLATES = sorted((FOLDER / "templates").glob("*.html"))


def test_htmx_is_the_release_that_is_recorded() -> None:
    recorded = re.search(r"SHA-256 `([0-9a-f]{64})`", (FOLDER / "static" / "README.md").read_text())
    assert recorded is not None
    assert sha256((FOLDER / "static/htmx.min.js").read_bytes()).hexdigest() == recorded[1]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_no_template_has_what_the_policy_forbids_or_trusts_what_comes_from_outside(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"""\sstyle=|\son[a-z]+=|<style|javascript:|hx-on|\|\s*safe|autoescape false""", text)
    assert not re.search(r"""(src|href|action)=["']https?:""", text)
    assert all('src="{{' in tag for tag in re.findall(r"<script[^>]*>", text))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_each_form_that_changes_something_brings_the_token_of_its_session(path: Path) -> None:
    forms = re.findall(r"<form[^>]*method=\"post\".*?</form>", path.read_text(), re.DOTALL)
    assert all("csrf(visitor)" in form or 'name="csrf"' in form for form in forms)


@pytest.mark.parametrize(
    "target",
    [
        *("https://evil.example", "//evil.example", "/console/../v1/orgs", "/consolex", "/console\\\\evil", ""),
        *("/console/\r\nset-cookie: a=b", "/console/ä", "/console/sign-in", "/console/" + "a" * 3_000, "javascript:x"),
    ],
)
def test_a_target_that_is_no_page_of_ours_becomes_the_overview(target: str) -> None:
    assert safe_target(target) == "/console"


@pytest.mark.parametrize("target", ["/console", "/console?a=b", "/console/runs/1?x=%2F%2Fevil", "/console/parked"])
def test_a_page_of_ours_is_a_target(target: str) -> None:
    assert safe_target(target) == target


def test_a_form_is_read_as_browsers_send_it() -> None:
    assert read_form(b"reason=mended+in+1.4%26more&csrf=&n=%C3%A4") == {
        "reason": "mended in 1.4&more",
        "csrf": "",
        "n": "ä",
    }


@pytest.mark.parametrize("body", [b"\xff=1", b"n=%ff", b"&".join(b"f%d=" % number for number in range(51))])
def test_what_is_no_form_is_rejected(body: bytes) -> None:
    with pytest.raises(Rejected):
        read_form(body)


def test_a_sign_in_under_way_survives_its_cookie_and_nothing_else_is_taken_for_one() -> None:
    begun = Begun("state", "nonce", "verifier", "/console/runs")
    assert Begun.from_cookie(begun.as_cookie()) == begun
    for cookie in ("", "é", "e30=", "WzEsMiwzLDRd", "W10=", "not base64!", "WyJhIl0="):
        assert Begun.from_cookie(cookie) is None


def test_a_line_ends_now_on_the_right_and_its_most_is_on_top() -> None:
    chart = draw("x", "y", [(10, 0.0), (5, None), (5, 8.0), (0, 4.0)], width_s=10)
    assert chart.line == f"0.0,{HEIGHT - 1:.1f} {WIDTH / 2:.1f},1.0 {WIDTH:.1f},{HEIGHT - 31 - 1:.1f}"
    assert (chart.now, chart.most) == ("4", "8")


def test_what_the_last_look_could_not_see_is_unknown_now() -> None:
    chart = draw("x", "y", [(5, 3.0), (0, None)], width_s=10)
    assert (chart.now, chart.most) == ("unknown", "3")


def test_a_line_of_which_nothing_is_known_says_so() -> None:
    chart = draw("x", "y", [(1, None)], width_s=10)
    assert (chart.now, chart.line) == ("unknown", "")


def test_what_could_not_be_had_is_never_shown_as_none() -> None:
    gone: Part[Any] = Part(None, "no answer in 5 s")
    seen = Status(datetime.now(UTC), gone, gone, gone, {"operate": gone})
    shown = describe(Sample(time.monotonic(), seen, None, None, None, None))
    assert shown.count("Unknown: ") == 3
    assert shown.count('<span class="now">unknown</span>') == 4
    assert shown.count("could not be had: no answer in 5 s") == 3
    assert "Nothing is parked" not in shown


def describe(sample: Sample) -> str:
    """The live part of the overview after one look."""
    request = Request({"type": "http", "method": "GET", "path": "/console/live", "query_string": b"", "headers": []})
    return bytes(page(request, "live", overview.describe([sample], every_s=2)).body).decode()


async def test_a_part_that_could_not_be_had_is_asked_for_again_until_it_can_be() -> None:
    nobody = DatabaseSettings(url=SecretStr("postgresql://nobody@127.0.0.1:1/none"))
    console = Console(Settings(database=nobody, console=ConsoleSettings(enabled=True)))
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(console), base_url="http://orgs.example", cookies={"orgs-console": "a secret"}
    ) as client:
        part = await client.get("/console/live?a=%22%3E", headers={"hx-request": "true"})
        assert (part.status_code, "Not reachable" in part.text) == (200, True)
        assert 'hx-get="/console/live?a=%22%3E" hx-trigger="every 5s"' in part.text
        page = await client.get("/console")
        assert (page.status_code, "hx-get" in page.text) == (503, False)
    await console.close()
