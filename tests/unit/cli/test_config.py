import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from org_service.cli import shell
from org_service.cli.app import app
from org_service.cli.trouble import masked_url

runner = CliRunner()


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No local stack, no setting of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("ORGS_")]:
        monkeypatch.delenv(name)


def shown() -> dict[str, dict[str, str]]:
    result = runner.invoke(app, ["config", "show", "--json"])
    assert result.exit_code == 0, result.output
    return {setting["name"]: setting for setting in json.loads(result.stdout)}


def write_stack_env(text: str) -> None:
    Path(".local").mkdir()
    Path(".local/stack.env").write_text(text)


@pytest.mark.parametrize(
    ("variable", "server"),
    [
        ("ORGS_KAFKA__BOOTSTRAP_SERVERS", "staging:9092"),
        ("orgs_kafka", '{"bootstrap_servers": "staging:9092"}'),
        ("ORGS_DATABASE__URL", "postgresql://staging/orgs"),
        ("ORGS_API_URL", "https://staging"),
    ],
)
def test_the_stack_file_is_ignored_for_other_servers(
    variable: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its trust in publishers, nor its issuer, nor its token, nor the other server."""
    write_stack_env(
        "ORGS_KAFKA__BOOTSTRAP_SERVERS=stack:1\nORGS_DATABASE__URL=postgresql://stack/orgs\nORGS_API_URL=http://x\n"
        "ORGS_AUTH__COMMANDS=trusted\nORGS_AUTH__ISSUER=local\nORGS_AUTH__JWKS_FILE=keys\nORGS_TOKEN=secret\n"
    )
    monkeypatch.setenv(variable, server)
    result = runner.invoke(app, ["config", "show", "--json"])
    settings = {setting["name"]: setting for setting in json.loads(result.stdout)}
    assert {each["source"] for each in settings.values()} <= {"environment", "default"}
    assert (settings["ORGS_AUTH__COMMANDS"]["value"], settings["ORGS_AUTH__ISSUER"]["value"]) == ("tokens", "")


@pytest.mark.parametrize("name", ["ORGS_KAFKA__BOOTSTRAP_SERVERS", "orgs_kafka__bootstrap_servers"])
def test_the_servers_of_the_stack_file_use_its_other_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stack_env(f"{name}=stack:1\nORGS_AUTH__COMMANDS=trusted\n")
    monkeypatch.setenv("ORGS_KAFKA__BOOTSTRAP_SERVERS", "stack:1")
    assert shown()["ORGS_AUTH__COMMANDS"]["value"] == "trusted"


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGS_DATABASE__URL", "postgresql://me:sesame@db:5432/orgs?sslmode=require&password=sesame")
    monkeypatch.setenv("ORGS_KAFKA__SASL_PASSWORD", "sesame")
    for arguments in (["config", "show"], ["config", "show", "--json"]):
        assert "sesame" not in runner.invoke(app, arguments).output
    settings = shown()
    assert settings["ORGS_DATABASE__URL"]["value"] == "postgresql://me:***@db:5432/orgs?sslmode=require&password=***"
    assert settings["ORGS_KAFKA__SASL_PASSWORD"]["value"] == "***"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://db/orgs", "postgresql://db/orgs"),
        ("postgresql://me@db:5/orgs", "postgresql://me@db:5/orgs"),
        ("postgresql://me:p%40ss@db/orgs", "postgresql://me:***@db/orgs"),
        ("postgresql://me:pa@ss@db:5432/orgs", "postgresql://me:***@db:5432/orgs"),
        ("postgresql://:secret@/orgs?host=/run/pg", "postgresql://:***@/orgs?host=/run/pg"),
        ("postgresql://me:secret@a:1,b:2/orgs", "***"),
        ("not a url: secret", "***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, masked: str) -> None:
    assert masked_url(url) == masked


def test_the_environment_wins_over_the_stack_file_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    write_stack_env(
        "ORGS_KAFKA__BOOTSTRAP_SERVERS=stack:1\nORGS_DATABASE__URL=postgresql://stack/orgs\nORGS_AUTH__COMMANDS=trusted\n"
    )
    monkeypatch.setenv("ORGS_AUTH__COMMANDS", "tokens")
    settings = shown()
    assert (
        settings["ORGS_KAFKA__BOOTSTRAP_SERVERS"]["value"],
        settings["ORGS_KAFKA__BOOTSTRAP_SERVERS"]["source"],
    ) == (
        "stack:1",
        ".local/stack.env",
    )
    assert (settings["ORGS_AUTH__COMMANDS"]["value"], settings["ORGS_AUTH__COMMANDS"]["source"]) == (
        "tokens",
        "environment",
    )
    assert settings["ORGS_KAFKA__PARTITIONS"] == {
        "name": "ORGS_KAFKA__PARTITIONS",
        "value": "12",
        "default": "12",
        "source": "default",
        "description": "Partitions of each data topic, when topics are created",
    }


def test_a_wrong_setting_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGS_KAFKA__PARTITIONS", "many-sesame")
    result = runner.invoke(app, ["config", "show"])
    assert result.exit_code == 2
    assert "ORGS_KAFKA__PARTITIONS: " in result.stderr
    assert "sesame" not in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"ORGS_KAFKA__SECURITY_PROTOCOL": "SSL", "ORGS_KAFKA__SSL_CA_FILE": "nowhere.pem"},
            "ssl_ca_file 'nowhere.pem' cannot be read as PEM",
        ),
        ({"ORGS_RELAY__PUBLISH_TIMEOUT_S": "120"}, "stalled_after_s must be more than publish_timeout_s"),
        ({"ORGS_RELAY__TRANSACTION_TIMEOUT_MS": "20000"}, "transaction_timeout_ms must not be less"),
        ({"ORGS_WORKER__SESSION_TIMEOUT_MS": "3000"}, "6000"),
        ({"ORGS_DATABASE__URL": "mysql://me:pw@db/orgs"}, "ORGS_DATABASE__URL: must be postgresql://"),
        ({"ORGS_DATABASE__URL": "postgresql://me:pw@db:port/orgs"}, "ORGS_DATABASE__URL: must be postgresql://"),
        ({"ORGS_DATABASE__URL": "postgresql://[me/orgs"}, "ORGS_DATABASE__URL: must be postgresql://"),
        ({"ORGS_KAFKA__BOOTSTRAP_SERVERS": "a:1,b:x"}, "ORGS_KAFKA__BOOTSTRAP_SERVERS: must be host:port"),
        ({"ORGS_KAFKA__BOOTSTRAP_SERVERS": ""}, "ORGS_KAFKA__BOOTSTRAP_SERVERS: must be host:port"),
        ({"ORGS_KAFKA__TOPIC_PREFIX": "a b"}, "ORGS_KAFKA__TOPIC_PREFIX: a topic prefix is"),
        ({"ORGS_EDGE__CORS_ORIGINS": "https://a.example"}, "ORGS_EDGE__CORS_ORIGINS: must be a JSON array"),
        ({"ORGS_EDGE__PUBLIC_URL": "orgs.example"}, "ORGS_EDGE__PUBLIC_URL: must be an http or https URL"),
        ({"ORGS_API_URL": "localhost:9100"}, "ORGS_API_URL: must be an http or https URL"),
        ({"ORGS_AUTH": "trusted"}, '"auth"'),
        ({"ORGS_KAFKA__BOOTSTRAP": "a:1"}, "ORGS_KAFKA__BOOTSTRAP: unknown setting"),
        ({"ORGS_KAKFA__PARTITIONS": "1"}, "ORGS_KAKFA__PARTITIONS: unknown setting"),
        (
            {"ORGS_KAFKA_BOOTSTRAP_SERVERS": "a:1"},
            "ORGS_KAFKA_BOOTSTRAP_SERVERS: unknown setting; did you mean ORGS_KAFKA__BOOTSTRAP_SERVERS (two",
        ),
    ],
)
def test_settings_that_can_never_work_are_rejected_at_once(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = runner.invoke(app, ["config", "show"])
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("name", "value", "as_shown"),
    [
        ("ORGS_DATABASE__URL", "postgresql://a:1,[::1]:2,c/orgs", "***"),
        ("ORGS_DATABASE__URL", "postgres:///orgs?host=/run/pg", "postgres:///orgs?host=/run/pg"),
        ("ORGS_KAFKA__BOOTSTRAP_SERVERS", "a:1, [::1]:2,c_d", "a:1, [::1]:2,c_d"),
        ("ORGS_EDGE__CORS_ORIGINS", '["https://a.example"]', '["https://a.example"]'),
        ("ORGS_AUTH__ALGORITHMS", '["EdDSA"]', '["EdDSA"]'),
        ("ORGS_DRAIN_TIMEOUT_S", "7", "7"),
    ],
)
def test_a_setting_is_shown_as_it_may_be_written(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, as_shown: str
) -> None:
    monkeypatch.setenv(name, value)
    assert shown()[name]["value"] == as_shown


def test_variables_that_kubernetes_sets_for_a_service_are_not_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGS_WORKER_PORT", "tcp://10.0.0.1:9101")
    assert shown()["ORGS_WORKER__PORT"]["value"] == "9101"


def test_a_narrow_terminal_shows_every_setting_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGS_KAFKA__BOOTSTRAP_SERVERS", "kafka.example:9092")
    monkeypatch.setattr(shell, "out", lambda: Console(width=60, soft_wrap=True))
    lines = runner.invoke(app, ["config", "show"]).stdout.splitlines()
    assert lines[:3] == [
        "ORGS_KAFKA__BOOTSTRAP_SERVERS = kafka.example:9092  environment",
        "  host:port, comma-separated (default 127.0.0.1:9092)",
        "ORGS_KAFKA__TOPIC_PREFIX =   default",
    ]
