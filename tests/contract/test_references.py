"""Whatever code and documentation refer to exists: files, headings, decisions, guarantees."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "events", "service", "deploy", "tests")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONTRACT = ROOT / "docs" / "contract.md"
CITED = re.compile(r"\bguarantee (\d+)\b")
"""How code, tests and pages cite a guarantee of the contract; `git grep "guarantee 4"` finds what upholds it."""
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
DOCUMENT = re.compile(r"(?<![\w./{}<*-])((?:[\w-]+/)*[\w-]+\.md)\b")
DECISION = re.compile(r"\bdecision (\d{4})\b")
OUTSIDE = re.compile(
    r"§\s*\d|\bsections? \d+(?:(?: and |, )\d+)* of the design|\bdesign,? section|(?<!SQLAlchemy )\bissue \d+"
)


def texts() -> Iterator[Path]:
    """Every source file, page and configuration file."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".md", ".toml", ".sql", ".ini", ".mako"} and "node_modules" not in path.parts:
                yield path
    yield from (
        ROOT / name for name in ("README.md", "CHANGELOG.md", "pyproject.toml", "Makefile", "docker-compose.yml")
    )


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub makes fragments of them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def guarantees(page: Path) -> list[int]:
    section = page.read_text(encoding="utf-8").partition("## Guarantees\n")[2].partition("\n## ")[0]
    return [int(number) for number in re.findall(r"^(\d+)\. ", section, re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{name(page)} links to {target}"
        if fragment:
            assert fragment in anchors(found), f"{name(page)} links to {target}"


def test_every_document_that_is_named_is_in_the_repository() -> None:
    decisions = {path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")}
    missing: list[str] = []
    for path in texts():
        text = path.read_text(encoding="utf-8")
        for document in DOCUMENT.findall(text):
            places = (
                ROOT / document,
                path.parent / document,
                ROOT / "docs" / document,
                ROOT / "docs/decisions" / document,
            )
            if not any(place.exists() for place in places):
                missing.append(f"{name(path)}: {document}")
        missing += [f"{name(path)}: decision {number}" for number in DECISION.findall(text) if number not in decisions]
        if path != Path(__file__):
            missing += [f"{name(path)}: {found}" for found in OUTSIDE.findall(text)]
    assert not missing


def test_the_readme_numbers_the_guarantees_as_the_contract_does() -> None:
    numbers = guarantees(CONTRACT)
    assert numbers == list(range(1, len(numbers) + 1))
    assert guarantees(ROOT / "README.md") == numbers


def test_each_guarantee_is_cited_by_code_that_upholds_it() -> None:
    code = [path for path in texts() if path.suffix == ".py" and name(path).startswith(("service/", "events/"))]
    cited = {int(number) for path in code for number in CITED.findall(path.read_text(encoding="utf-8"))}
    assert cited == set(guarantees(CONTRACT))


def test_no_text_cites_a_guarantee_that_the_contract_does_not_have() -> None:
    numbers = set(guarantees(CONTRACT))
    for path in texts():
        text = path.read_text(encoding="utf-8")
        assert {int(number) for number in CITED.findall(text)} <= numbers, name(path)
        if path.suffix == ".py" and path != Path(__file__):
            several = re.findall(r"\bguarantees \d", text)
            assert not several, f"{name(path)}: cite each guarantee by itself, so that it is found"
