"""The public face of the contract: what other teams import, and what they need for it."""

import subprocess
import sys

import org_events
from org_events import publishing, subscribing
from org_events.commands import COMMANDS
from org_events.publishing import errors
from org_events.schemas import MODELS
from org_events.subscribing import errors as subscribing_errors

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
    for package in (org_events, publishing, subscribing):
        classes = {name for name, value in vars(package).items() if isinstance(value, type)}
        assert classes <= set(package.__all__)


def test_every_model_on_the_wire_is_public() -> None:
    models = {*COMMANDS.values(), *(model for _, model in MODELS.values())}
    assert {model.__name__ for model in models} <= set(org_events.__all__)


def test_every_error_of_the_clients_is_public() -> None:
    for package, module in ((publishing, errors), (subscribing, subscribing_errors)):
        found = {each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Exception)}
        assert {each.__name__ for each in found} <= set(package.__all__)
