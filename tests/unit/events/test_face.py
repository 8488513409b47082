"""The public face of the contract: what other teams import, and what they need for it."""

import subprocess
import sys

import org_events
from org_events import publishing
from org_events.commands import COMMANDS
from org_events.publishing import errors
from org_events.schemas import MODELS

_WITHOUT_KAFKA = """
import sys
sys.modules["aiokafka"] = None  # an import of it fails
import org_events
for name in org_events.__all__:
    getattr(org_events, name)
"""


def test_the_contract_is_imported_without_a_kafka_client() -> None:
    ended = subprocess.run([sys.executable, "-c", _WITHOUT_KAFKA], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_public_package_exports_everything_it_imports() -> None:
    for package in (org_events, publishing):
        classes = {name for name, value in vars(package).items() if isinstance(value, type)}
        assert classes <= set(package.__all__)


def test_every_model_on_the_wire_is_public() -> None:
    models = {*COMMANDS.values(), *(model for _, model in MODELS.values())}
    assert {model.__name__ for model in models} <= set(org_events.__all__)


def test_every_error_of_the_client_is_public() -> None:
    raised = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert raised <= set(publishing.__all__)
