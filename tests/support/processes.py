"""Workers and relays as processes of their own: started, killed, asked to end, and read from outside."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal

from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from org_service.settings import Settings
from tests.support.waiting import wait_for

Role = Literal["worker", "relay", "edge", "operate"]

START_TIMEOUT_S = 40
STOP_TIMEOUT_S = 40
COMMAND_TIMEOUT_S = 90


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give a process these settings: what was set in a group, and nothing else of ours."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ORGS_")}
    for group in ("kafka", "database", "worker", "relay", "edge", "operate", "auth", "log", "tracing"):
        values = getattr(settings, group)
        for name in values.model_fields_set:
            value = getattr(values, name)
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            text = json.dumps(text) if isinstance(text, tuple) else text
            variables[f"ORGS_{group.upper()}__{name.upper()}"] = str(text)
    variables["ORGS_LOG__FORMAT"] = "json"
    return variables


class ServiceProcess:
    """One `orgs serve`; after a kill it can be started again, its log goes on."""

    def __init__(self, role: Role, settings: Settings, folder: Path, name: str | None = None) -> None:
        self.role = role
        self.name = name or role
        self._environment = environment(settings) | {
            f"ORGS_{role.upper()}__PORT": "0",
            "ORGS_EDGE__HEALTH_PORT": "0",
        }
        self.log_path = folder / f"{self.name}.log"
        self._log: IO[bytes] = self.log_path.open("ab")
        self._log_from = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.kills = 0

    @property
    def pid(self) -> int | None:
        """Of the process that was started last."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; it isn't ready at once."""
        self._log_from = self.log_path.stat().st_size
        self._process = subprocess.Popen(
            [sys.executable, "-m", "org_service.cli", "serve", "--role", self.role],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self.starts += 1

    def kill(self) -> None:
        """SIGKILL: nothing can be tidied up.

        Raises:
            AssertionError: It was not running, so killing it proves nothing.
        """
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} had ended by itself: {self.tail()}"
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.kills += 1

    def freeze(self) -> None:
        """SIGSTOP: it does nothing more, and its connections stay, as on a machine that is paused."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on where it was, and doesn't know that time has passed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask_to_end(self) -> None:
        """SIGTERM: it drains, and ends."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def status(self) -> int | None:
        """Its exit status, or None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def terminate(self) -> int:
        """SIGTERM, and wait until it has drained. Returns its exit status."""
        assert self._process is not None
        self.ask_to_end()
        return self._process.wait(STOP_TIMEOUT_S)

    def close(self) -> None:
        """End it, whatever its state."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def wait_until_ready(self) -> None:
        """Wait for `/readyz`.

        Raises:
            TimeoutError: It isn't in time; the message says what it logged last.
        """
        try:
            wait_for(self.ready, f"ready {self.name}", START_TIMEOUT_S, 0.05)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.tail()}") from error

    def url(self) -> str | None:
        """Where its health and metrics are, as its log says since the last start."""
        return self._logged("url")

    def api_url(self) -> str | None:
        """Where an edge's API is, as its log says since the last start."""
        return self._logged("api")

    def metrics(self) -> dict[str, float]:
        """All samples, as `name{label=value,…}`."""
        samples: dict[str, float] = {}
        for family in text_string_to_metric_families(self._get("/metrics")):
            for sample in family.samples:
                samples[_series(sample.name, sample.labels)] = sample.value
        return samples

    def readiness(self) -> str:
        """What `/readyz` says, ready or not."""
        try:
            return self._get("/readyz")
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def errors(self, *besides: str) -> list[dict[str, Any]]:
        """Log lines of level error and above, since its first start, besides those of these loggers."""
        errors = [line for line in self.lines() if line.get("level") in ("error", "critical")]
        return [line for line in errors if not line.get("logger", "").startswith(besides)]

    def lines(self) -> list[dict[str, Any]]:
        """All log lines; what is no JSON (a traceback of a process that ended) counts as an error."""
        lines: list[dict[str, Any]] = []
        for text in self.log_path.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                lines.append({"level": "error", "event": text})
        return lines

    def tail(self) -> str:
        """The end of its log."""
        return self.log_path.read_text()[-3000:]

    def ready(self) -> bool:
        """What `/readyz` says; one that ended fails the test."""
        assert self.running, f"{self.name} ended: {self.tail()}"
        try:
            self._get("/readyz")
        except OSError:
            return False
        return True

    def _logged(self, name: str) -> str | None:
        with self.log_path.open("rb") as log:
            log.seek(self._log_from)
            found = re.search(rb'"%b": ?"(http://[^"]+)"' % name.encode(), log.read())
        return found[1].decode() if found else None

    def _get(self, path: str) -> str:
        url = self.url()
        if url is None:
            raise ConnectionError(f"{self.name} has no port yet")
        with urllib.request.urlopen(f"{url}{path}", timeout=5) as answer:
            return answer.read().decode()


class CommandProcess:
    """One `orgs` command as a process of its own, which can be killed on its way.

    Args:
        settings: Of the servers.
        folder: For what it says.
        arguments: After `orgs`.
    """

    def __init__(self, settings: Settings, folder: Path, *arguments: str) -> None:
        self._said = folder / f"orgs-{secrets.token_hex(4)}.log"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "org_service.cli", *arguments],
                env=environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def kill(self) -> None:
        """SIGKILL.

        Raises:
            AssertionError: It had ended by itself, so killing it proves nothing.
        """
        assert self._process.poll() is None, self.said()
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """Wait until it ends. Returns its exit status."""
        return self._process.wait(COMMAND_TIMEOUT_S)

    def close(self) -> None:
        """End it, whatever its state."""
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        """What it wrote, on both streams."""
        return self._said.read_text()


def _series(name: str, labels: Mapping[str, str]) -> str:
    inner = ",".join(f"{label}={value}" for label, value in sorted(labels.items()))
    return f"{name}{{{inner}}}" if inner else name
