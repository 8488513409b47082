"""`docs/sql` has every statement that the store sends, and the store sends no other."""

import ast
import re
from pathlib import Path

import pytest

import org_service.store
from org_service.documentation.files import ROOT
from org_service.documentation.sql_pages import FOLDER, PLAN_SUFFIX, make_sql_pages, text_of
from org_service.store import compiled
from tests.bench.hot_statements import hot_statements
from tests.bench.plan_data import PlanData
from tests.bench.plans import COMMAND, digest_of, indexes_in, indexes_named

pytestmark = pytest.mark.contract

RUNS = {"execute", "scalar", "scalars", "stream", "exec_driver_sql", "fetch", "fetchval", "fetchrow", "_ask"}
ELSEWHERE = {"prepared.py", "engine.py"}
"""They run what others hand them."""
HANDED_ON = {"query", "list_related(shape)", "list_active(shape)"}
SMALL = {"journal_head", "reference_progress", "staff"}
"""Tables of a page or two, which Postgres reads whole."""
STORE = Path(org_service.store.__file__ or "").parent
PLANS = sorted((ROOT / FOLDER).rglob(f"*{PLAN_SUFFIX}"))


def test_the_folder_has_the_statements_and_nothing_else() -> None:
    written = {str(each.relative_to(ROOT)) for each in (ROOT / FOLDER).rglob("*") if each.is_file()}
    assert {each for each in written if not each.endswith(PLAN_SUFFIX)} == make_sql_pages().keys()


def test_each_hot_statement_has_its_plan_on_a_million_and_nothing_else_has() -> None:
    hot = {hot.statement for hot in hot_statements(PlanData(1_000, 1_000), 10)}
    assert {str(path.relative_to(ROOT / FOLDER)).removesuffix(PLAN_SUFFIX) for path in PLANS} == hot
    assert all("organization 1,000,000, " in path.read_text() for path in PLANS)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_plan_uses_indexes_that_the_description_names_and_reads_only_small_tables(path: Path) -> None:
    plan = path.read_text()
    name = str(path.relative_to(ROOT / FOLDER)).removesuffix(PLAN_SUFFIX)
    assert indexes_in(plan) <= indexes_named(text_of(name))
    assert set(re.findall(r"Seq Scan on (\w+)", plan)) <= SMALL


@pytest.mark.parametrize("path", PLANS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_plan_is_of_the_statement_as_it_is_now(path: Path) -> None:
    name = str(path.relative_to(ROOT / FOLDER)).removesuffix(PLAN_SUFFIX)
    said = f"SHA-256 begins with {digest_of(compiled.list_statements()[name])}."
    assert said in path.read_text(), f"the plan of {name} is of a former statement: run `nice {COMMAND}`"


def run_by(path: Path) -> set[str]:
    """What the functions of a module run, as it is written there."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in RUNS:
            continue
        if node.func.attr == "fetch":
            found.add(ast.unparse(node.func.value))  # of a prepared statement
        elif node.args:
            given = node.args[0]
            either = [given.body, given.orelse] if isinstance(given, ast.IfExp) else [given]
            found |= {ast.unparse(each) for each in either}
    return found


@pytest.mark.parametrize("path", sorted(STORE.glob("*.py")), ids=lambda path: path.stem)
def test_every_statement_that_is_run_is_a_constant_that_has_a_page(path: Path) -> None:
    if path.name in ELSEWHERE:
        return
    pages = [name.partition("/")[2] for name in compiled.list_statements() if name.startswith(f"{path.stem}/")]
    for run in run_by(path) - HANDED_ON:
        name = run.removeprefix("self.").strip("_").lower()
        assert any(page == name or page.endswith(f"_{name}") for page in pages), f"{path.name} runs {run}"
