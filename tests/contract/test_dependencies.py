"""Versions below which a library of ours does harm."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]


def requirement(project: str, name: str) -> Requirement:
    described = tomllib.loads((REPOSITORY / project / "pyproject.toml").read_text())["project"]
    optional = [each for extra in described.get("optional-dependencies", {}).values() for each in extra]
    [found] = [each for each in map(Requirement, [*described["dependencies"], *optional]) if each.name == name]
    return found


@pytest.mark.parametrize(
    ("project", "name", "harmful", "first_good"),
    [
        ("service", "orjson", "3.11.5", "3.11.6"),  # CVE-2025-67221: deep nesting ends the process
        ("service", "asyncpg", "0.31.0", "0.32.0"),  # SQLAlchemy 12728: a task cancelled in COMMIT hangs
    ],
)
def test_a_harmful_version_cannot_be_installed(project: str, name: str, harmful: str, first_good: str) -> None:
    versions = requirement(project, name).specifier
    assert not versions.contains(harmful)
    assert versions.contains(first_good)
