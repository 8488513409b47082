"""`docs/sql` has every statement that the store sends, and the store sends no other."""

import ast
from pathlib import Path

import pytest

import org_service.store
from org_service.documentation.files import ROOT
from org_service.documentation.sql_pages import FOLDER, sql_pages
from org_service.store import compiled

pytestmark = pytest.mark.contract

RUNS = {"execute", "scalar", "scalars", "stream", "exec_driver_sql", "fetch", "fetchval", "fetchrow", "_ask"}
ELSEWHERE = {"prepared.py", "engine.py"}
"""They run what others hand them."""
HANDED_ON = {"query", "list_related(shape)", "list_active(shape)"}
STORE = Path(org_service.store.__file__ or "").parent


def test_the_folder_has_the_statements_and_nothing_else() -> None:
    written = {str(each.relative_to(ROOT)) for each in (ROOT / FOLDER).rglob("*") if each.is_file()}
    plans = {each for each in written if each.endswith(".plan.txt")}
    assert written - plans == sql_pages().keys()
    assert {each.replace(".plan.txt", ".sql") for each in plans} <= written


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
    pages = [name.partition("/")[2] for name in compiled.statements() if name.startswith(f"{path.stem}/")]
    for run in run_by(path) - HANDED_ON:
        name = run.removeprefix("self.").strip("_").lower()
        assert any(page == name or page.endswith(f"_{name}") for page in pages), f"{path.name} runs {run}"
