"""Expected trouble in one line: what, where, and what to do. Unexpected trouble keeps its traceback."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from org_service.cli.shell import FAILED, NO_SUCH_SETTING, STACK_ENV, UNKNOWN, USAGE

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

MASK: Final = "***"
_SECRET_PARAMETERS: Final = frozenset({"password", "sslpassword", "passfile"})


class Explanation(NamedTuple):
    """What to say, and how to exit."""

    message: str
    code: int


def explain(error: BaseException) -> Explanation | None:
    """What to say about an error that can be expected; None for a defect of ours."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from org_events.publishing.errors import ClientError, KafkaRefused, OutcomeUnknown, TopicMissing
    from org_service.errors import RetryError, ServiceError, UnreachableError

    if isinstance(error, ValidationError):
        return Explanation(_wrong_settings(error), USAGE) if error.title == "Settings" else None
    if isinstance(error, SettingsError):
        return Explanation(f"invalid setting:\n  {error}", USAGE)
    if isinstance(error, ServiceError) and not isinstance(error, UnreachableError):
        return Explanation(str(error), UNKNOWN if isinstance(error, RetryError) else FAILED)
    if isinstance(error, ClientError):
        hint = " Is a worker running?" if isinstance(error, OutcomeUnknown) else ""
        return Explanation(f"{error}{hint}", FAILED if isinstance(error, KafkaRefused | TopicMissing) else UNKNOWN)
    known = _kafka(error) or _postgres(error)
    if known is not None:
        return known
    if isinstance(error, OSError) and error.filename is not None:
        return Explanation(f"{error.filename}: {error.strerror}", USAGE)
    return None


def masked_url(url: str) -> str:
    """A database URL without its secrets; all of it is a secret when it can't be read."""
    try:
        parts = urlsplit(url)
        user, port = parts.username, parts.port
    except ValueError:
        return MASK
    if not parts.scheme:
        return MASK
    login = ""
    if user is not None:
        login = f"{user}@" if parts.password is None else f"{user}:{MASK}@"
    host = parts.netloc.rpartition("@")[2] if port is None or "@" in parts.netloc else parts.netloc
    query = [
        (name, MASK if name in _SECRET_PARAMETERS else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return f"{parts.scheme}://{login}{host}{parts.path}{'?' if query else ''}{urlencode(query, safe='*/')}"


def wrong_fields(error: "ValidationError") -> str:
    """The wrong fields of a command, a line each."""
    return "\n  ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in _errors(error))


def _wrong_settings(error: "ValidationError") -> str:
    lines = [f"ORGS_{'__'.join(map(str, each['loc'])).upper()}: {_about_setting(each)}" for each in _errors(error)]
    return "invalid setting:\n  " + "\n  ".join(lines)


def _about_setting(error: "ErrorDetails") -> str:
    if error["type"] == "extra_forbidden":
        return NO_SUCH_SETTING
    return error["msg"].removeprefix("Value error, ")


def _errors(error: "ValidationError") -> "list[ErrorDetails]":
    return error.errors(include_url=False, include_input=False, include_context=False)


def _places() -> tuple[str, str]:
    """Where Kafka and Postgres should be, for a message."""
    from org_service.cli.shell import load_settings

    settings = load_settings()
    return settings.kafka.bootstrap_servers, masked_url(settings.database.url.get_secret_value())


def _way_in(variable: str) -> str:
    if variable in os.environ:
        return f"The address is set in {variable}: is that where it runs?"
    if STACK_ENV.is_file():
        return f"The address is from {STACK_ENV}: is `orgs up` still running? Or set {variable}."
    return f"Start the local stack with `orgs up`, or set {variable}."


def _kafka(error: BaseException) -> Explanation | None:
    from org_service.kafka import client as errors

    where = _places()[0]
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        return Explanation(f"a topic is missing on Kafka at {where}: run `orgs topics apply`.", FAILED)
    if isinstance(error, errors.TopicAuthorizationFailedError | errors.GroupAuthorizationFailedError):
        return Explanation(f"Kafka at {where} denies access: {error!r}. Check its ACLs and ORGS_KAFKA__SASL_*.", FAILED)
    if isinstance(error, errors.KafkaError):
        said = "" if isinstance(error, errors.KafkaConnectionError) else f" ({error!r})"
        return Explanation(
            f"Kafka does not respond at {where}{said}. {_way_in('ORGS_KAFKA__BOOTSTRAP_SERVERS')}", UNKNOWN
        )
    return None


_BY_SQLSTATE: Final = {
    "42P01": "its tables are missing: run `orgs migrate`.",
    "42704": "it does not support a parameter: it is older than PostgreSQL 17, or ORGS_DATABASE__URL sets one.",
    "42703": "its tables have another version: run `orgs migrate`.",
    "3D000": "the database does not exist: create it, then run `orgs migrate`.",
    "22023": "the roles of the service are missing: run `orgs migrate`.",
    "28P01": "it rejects the password in ORGS_DATABASE__URL.",
    "28000": "it rejects the login in ORGS_DATABASE__URL.",
    "42501": "the login in ORGS_DATABASE__URL lacks a permission: grant it the roles orgs_owner, orgs_reader … as "
    "needed.",
}
"""What to do about an answer of Postgres (manual, appendix A)."""


def _postgres(error: BaseException) -> Explanation | None:
    from org_service.errors import RetryError
    from org_service.store.failures import classify, find_misconfiguration

    wrong = find_misconfiguration(error)
    if wrong is not None:
        return Explanation(f"invalid setting:\n  ORGS_DATABASE__URL: {wrong}", USAGE)
    where = _places()[1]
    for each in _causes(error):
        advice = _BY_SQLSTATE.get(getattr(each, "sqlstate", None) or "")
        if advice is not None:
            return Explanation(f"Postgres at {where}: {advice}", FAILED)
    if isinstance(error, OSError) and error.filename is not None:
        return None
    if isinstance(classify(error), RetryError):
        return Explanation(f"Postgres does not respond at {where}. {_way_in('ORGS_DATABASE__URL')}", UNKNOWN)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    for inner in (getattr(error, "orig", None), error.__cause__):
        if isinstance(inner, BaseException):
            yield from _causes(inner)
