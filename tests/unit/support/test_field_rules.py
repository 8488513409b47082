"""The service's rule of names and the oracle's, written apart, agree about every character there is."""

from pydantic import TypeAdapter, ValidationError

from org_events.organization import Name
from org_service.domain.organization import name_key
from tests.support import field_rules

NAME = TypeAdapter[str](Name)


def ours(text: str) -> tuple[str, str] | None:
    try:
        name = NAME.validate_python(text)
    except ValidationError:
        return None
    return name, name_key(name)


def oracles(text: str) -> tuple[str, str] | None:
    try:
        name = field_rules.line(text)
    except field_rules.Wrong:
        return None
    return name, field_rules.name_key(name)


def test_two_rules_of_names_agree_about_every_character() -> None:
    # Of the planes that have characters: all but the private ones and those without any.
    for number in (*range(0x32000), *range(0xE0000, 0xE1000)):
        for text in (chr(number), f"a {chr(number)}"):
            assert ours(text) == oracles(text), f"U+{number:04X}"
