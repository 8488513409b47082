"""The contract package as other teams get it: its wheel, its public surface, its types, its weight, its README."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from org_events.testing.usage import read_manifest
from tests.contract.events.gate import EVENTS, RELEASED, USAGE

pytestmark = pytest.mark.contract

README = (EVENTS / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
IMPORT_MS_MAX = 150
"""Of a processor, where pydantic with a single model takes `PYDANTIC_MS`; more in proportion where other tests slow
everything down. Pydantic is four fifths of it."""
PYDANTIC_MS = 100
RUNS = 5
"""Of which the fastest counts: the others say what else the machine had to do."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Built twice, from files of other times and rights, in other folders."""
    return [build(tmp_path_factory.mktemp(name), mode) for name, mode in (("first", 0o644), ("second", 0o600))]


def build(folder: Path, mode: int) -> Path:
    source = folder / "events"
    shutil.copytree(EVENTS, source, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile)
    for file in source.rglob("*.py"):
        file.chmod(mode)
        os.utime(file, (mode, mode))
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1767603600"}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True)
    return next((source / "dist").glob("*.whl"))


def test_a_wheel_built_twice_has_the_same_bytes(wheels: list[Path]) -> None:
    first, second = (wheel.read_bytes() for wheel in wheels)
    assert first == second


def test_the_wheel_has_types_schemas_and_golden_messages_and_says_what_it_is(wheels: list[Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = set(wheel.namelist())
        [metadata] = [wheel.read(name).decode() for name in names if name.endswith("METADATA")]
        [entry_points] = [wheel.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert {
        "pytest_orgs.py",
        "org_events/py.typed",
        "org_events/schemas/organization-event.json",
        "org_events/testing/golden/latest.json",
    } <= names
    assert all(name.startswith(("org_events/", "org_events-", "pytest_orgs.py")) for name in names)
    assert set(re.findall(r"^Provides-Extra: (.*)$", metadata, re.MULTILINE)) >= {"kafka", "oauth", "pytest"}
    assert "# org-events" in metadata
    assert "orgs = pytest_orgs" in entry_points


class Line(NamedTuple):
    """Of a public surface: parameters, or an enum's values, and those parameters that must be given."""

    known: set[str]
    required: set[str]


def read_surface(text: str) -> dict[str, Line]:
    found: dict[str, Line] = {}
    for line in text.splitlines():
        name, _, rest = re.sub(r"[(:]", "|", line, count=1).partition("|")
        parts = {part.strip(" )") for part in rest.split(",")} - {"*", ""}
        called = {part for part in parts if "(" in line and not part.endswith("=")}
        found[name] = Line({part.rstrip("=") for part in parts}, called)
    return found


def breaches(old: dict[str, Line], new: dict[str, Line]) -> Iterator[str]:
    for name, line in old.items():
        if name not in new:
            yield f"{name} is gone"
            continue
        yield from (f"{name}: {gone} is gone" for gone in line.known - new[name].known)
        yield from (f"{name}: {added} must be given" for added in new[name].required - line.required)


@pytest.mark.parametrize("released", sorted(RELEASED.glob("*/surface.txt")), ids=lambda file: file.parent.name)
def test_a_program_written_for_a_release_finds_what_it_imports_and_calls(released: Path) -> None:
    present = (EVENTS / "surface.txt").read_text(encoding="utf-8")
    assert list(breaches(read_surface(released.read_text(encoding="utf-8")), read_surface(present))) == []


def test_a_break_of_the_surface_is_found() -> None:
    old = read_surface("a.f(x, *, y=)\na.g()\na.E: one, two\n")
    new = read_surface("a.f(x, z, *, w=)\na.E: one, three\n")
    assert sorted(breaches(old, new)) == ["a.E: two is gone", "a.f: y is gone", "a.f: z must be given", "a.g is gone"]


USER = """
from uuid import UUID

from org_events.publishing import OrganizationClient
from org_events.testing import DeliveredChange


async def send(orgs: OrganizationClient, org_id: UUID) -> int | None:
    await orgs.update(org_id, nmae="Acme")  # wrong
    await orgs.create(org_id)  # wrong
    result = await orgs.delete(org_id, expected_version=7)
    return result.problem.status  # wrong


def read(change: DeliveredChange) -> str:
    return change.after.name  # wrong
"""


def test_programs_of_other_teams_are_checked_strictly_and_their_mistakes_found(tmp_path: Path) -> None:
    for number, program in enumerate(PROGRAMS):
        (tmp_path / f"readme_{number}.py").write_text(program)
    (tmp_path / "wrong.py").write_text(USER)
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = json.loads(ended.stdout)["generalDiagnostics"]
    errors = [(Path(each["file"]).name, each["range"]["start"]["line"]) for each in found]
    wrong = [("wrong.py", number) for number, line in enumerate(USER.splitlines()) if line.endswith("# wrong")]
    assert sorted(set(errors)) == wrong, found


async def test_the_test_of_the_readme_passes(tmp_path: Path) -> None:
    (tmp_path / "readme.py").write_text(PROGRAMS[-1])
    spec = importlib.util.spec_from_file_location("readme", tmp_path / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    await module.test_the_index_survives()


IMPORT = """
import resource
def used(): return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
begin = used()
import pydantic
type("Model", (pydantic.BaseModel,), {})
pydantics = used()
import org_events
print(1000 * (pydantics - begin), 1000 * (used() - begin))
"""


def run_python(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_the_contract_is_imported_within_150_ms_of_a_processor_and_without_what_the_extras_need() -> None:
    runs = [run_python(IMPORT).split() for _ in range(RUNS)]
    pydantics, ours = (min(float(run[part]) for run in runs) for part in (0, 1))
    slowness = max(1.0, pydantics / PYDANTIC_MS)
    assert ours <= IMPORT_MS_MAX * slowness, (pydantics, ours)
    loaded = {*run_python("import sys, org_events, org_events.testing; print(*sys.modules)").split()}
    assert not {"aiokafka", "httpx2", "pytest", "opentelemetry", "asyncpg", "sqlalchemy"} & loaded
    assert "org_events" not in run_python("import sys, pytest_orgs; print(*sys.modules)").split()


def test_every_usage_manifest_can_be_read() -> None:
    for file in USAGE.glob("*.json"):
        assert read_manifest(file.read_text(encoding="utf-8"))["program"] == file.stem
