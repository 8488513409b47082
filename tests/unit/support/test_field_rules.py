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
    """Alone, and within a name; those that make a name alone are tried within one in company, which takes less time."""
    company = ""
    # Of the planes that have characters: all but the private ones and those without any.
    for number in (*range(0x32000), *range(0xE0000, 0xE1000)):
        alone = ours(chr(number))
        assert alone == oracles(chr(number)), f"U+{number:04X}"
        if alone is None or len(alone[0]) > 1:
            assert ours(f"a {chr(number)}") == oracles(f"a {chr(number)}"), f"U+{number:04X}"
        else:
            company += chr(number)
        if len(company) == 100:
            name = ours(f"a {company}")
            assert name is not None, company
            assert name == oracles(f"a {company}"), company
            company = ""
    assert ours(f"a {company}") == oracles(f"a {company}"), company
