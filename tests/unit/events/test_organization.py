"""The rules of an organization's fields, as tables."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter, ValidationError

from org_events.organization import (
    COUNTRIES,
    Address,
    AddressLine,
    Country,
    Domain,
    Name,
    Organization,
)

NAME = TypeAdapter[str](Name)
DOMAIN = TypeAdapter[str](Domain)
LINE = TypeAdapter[str](AddressLine)
COUNTRY = TypeAdapter[str](Country)

LABEL_63 = "a" * 63
DOMAIN_253 = f"{LABEL_63}.{LABEL_63}.{LABEL_63}.{'b' * 61}"


def code(adapter: TypeAdapter[str], text: object) -> str:
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python(text)
    (error,) = caught.value.errors(include_url=False)
    return error["type"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("Acme", "Acme"),
        ("a", "a"),
        ("  Acme Corp \t\n", "Acme Corp"),
        ("\u00a0Acme\u3000", "Acme"),
        ("\uff21\uff43\uff4d\uff45", "Acme"),
        ("ﬁnance №1", "finance No1"),
        ("Ærø & Sønner", "Ærø & Sønner"),
        ("Cafe\u0301", "Café"),
        ("株式会社", "株式会社"),
        ("👩‍👩‍👧 Family", "👩‍👩‍👧 Family"),
        ("🏴󠁧󠁢󠁷󠁬󠁳󠁿", "🏴󠁧󠁢󠁷󠁬󠁳󠁿"),
        ("\u0646\u0627\u0645\u0647\u200c\u0647\u0627", "\u0646\u0627\u0645\u0647\u200c\u0647\u0627"),
        ("\u200f\u0634\u0631\u06a9\u062a ABC\u200e (1)", "\u200f\u0634\u0631\u06a9\u062a ABC\u200e (1)"),  # marks
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u200d\u0937"),
        ("I \u2764\ufe0f Oslo", "I \u2764\ufe0f Oslo"),
        ("\u845b\U000e0100\u98fe", "\u845b\U000e0100\u98fe"),
        ("x" * 200, "x" * 200),
        ("💡" * 200, "💡" * 200),
        (" " * 50 + "x" * 200 + " " * 50, "x" * 200),
        # 201 characters before composition, 200 after.
        ("x" * 199 + "e\u0301", "x" * 199 + "é"),
    ],
)
def test_a_name_is_normalized_and_trimmed(sent: str, kept: str) -> None:
    assert NAME.validate_python(sent) == kept


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("", "blank"),
        ("   ", "blank"),
        ("\t\n", "blank"),
        ("\u00a0\u3000", "blank"),
        ("x" * 201, "too_long"),
        # One character that NFKC makes 18 of.
        ("\ufdfa" * 12, "too_long"),
        ("Ac\0me", "control_character"),
        ("\0", "control_character"),
        ("Acme\0", "control_character"),
        ("Ac\nme", "control_character"),
        ("Ac\tme", "control_character"),
        ("Ac\x7fme", "control_character"),
        ("Ac\x85me", "control_character"),
        ("Ac\u2028me", "control_character"),
        ("Ac\u2029me", "control_character"),
        ("Acme \ud83d", "control_character"),
        ("\udc00", "control_character"),
        ("Acme \u202egpj.exe", "control_character"),
        ("\u202aAcme\u202c", "control_character"),
        ("Ac\u2066me\u2069", "control_character"),
        ("Acme\ufff9hidden\ufffb", "control_character"),
        ("Acme\U000e0068\U000e0069", "control_character"),  # tags: text that programs read and people don't see
        ("\U0001f3f4\U000e0067\U000e0062", "control_character"),  # a flag whose tags don't end
        ("\u200b", "blank"),
        ("\u200b \u2060\ufeff", "blank"),
        ("\u3164", "blank"),
        ("\u2800\u2800", "blank"),
        ("\u00ad\ufe0f\u034f", "blank"),
        ("\U000e0100", "blank"),
        (None, "string_type"),
        (7, "string_type"),
    ],
)
def test_a_wrong_name_is_rejected_with_its_code(sent: object, expected: str) -> None:
    assert code(NAME, sent) == expected


def test_the_message_says_which_control_character_and_where() -> None:
    with pytest.raises(ValidationError) as caught:
        NAME.validate_python("Ac\0me")
    assert caught.value.errors()[0]["msg"] == "Character 3 is the control character U+0000; remove it"


def test_a_normalized_name_stays_as_it_is() -> None:
    for sent in ("\uff21\uff43\uff4d\uff45", " ﬁ ", "\u00a8x", "Å", "\u017f"):
        once = NAME.validate_python(sent)
        assert NAME.validate_python(once) == once


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("acme.com", "acme.com"),
        (" ACME.Com\n", "acme.com"),
        ("a.b", "a.b"),
        ("1and1.co.uk", "1and1.co.uk"),
        ("r3---sn.example.org", "r3---sn.example.org"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        ("XN--MNCHEN-3YA.DE", "xn--mnchen-3ya.de"),
        ("example.xn--p1ai", "example.xn--p1ai"),
        (f"{LABEL_63}.com", f"{LABEL_63}.com"),
        (DOMAIN_253, DOMAIN_253),
    ],
)
def test_a_domain_is_kept_in_lower_case(sent: str, kept: str) -> None:
    assert DOMAIN.validate_python(sent) == kept


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("münchen.de", "not_ascii"),
        # The kelvin sign, whose lower case is an ASCII k.
        ("\u212aids.com", "not_ascii"),
        ("acme\uff0ecom", "not_ascii"),
        ("acme\ud800.com", "not_ascii"),
        (DOMAIN_253 + "b", "too_long"),
        ("", "not_a_host_name"),
        (".", "not_a_host_name"),
        ("acme.com.", "not_a_host_name"),
        (".acme.com", "not_a_host_name"),
        ("acme..com", "not_a_host_name"),
        ("-acme.com", "not_a_host_name"),
        ("acme-.com", "not_a_host_name"),
        ("ac_me.com", "not_a_host_name"),
        ("ac me.com", "not_a_host_name"),
        ("ac\0me.com", "not_a_host_name"),
        ("acme.com\0", "not_a_host_name"),
        ("acme.com:80", "not_a_host_name"),
        ("https://acme.com", "not_a_host_name"),
        ("me@acme.com", "not_a_host_name"),
        ("[::1]", "not_a_host_name"),
        (f"{'a' * 64}.com", "not_a_host_name"),
        ("xn--.com", "not_a_host_name"),
        # Punycode of plain ASCII, of nothing readable, and a spelling no encoder writes.
        ("xn--acme-.com", "not_a_host_name"),
        ("xn--99999999.com", "not_a_host_name"),
        ("xn---oub.com", "not_a_host_name"),
        ("localhost", "too_few_labels"),
        ("127.0.0.1", "numeric_top_label"),
        (None, "string_type"),
    ],
)
def test_a_wrong_domain_is_rejected_with_its_code(sent: object, expected: str) -> None:
    assert code(DOMAIN, sent) == expected


@pytest.mark.parametrize("sent", ["NO", "GB", "SS", "TW", "AX"])
def test_a_country_is_an_assigned_code(sent: str) -> None:
    assert COUNTRY.validate_python(sent) == sent


@pytest.mark.parametrize("sent", ["", "no", "No", "NOR", "UK", "EU", "XK", "AN", "ZZ", " NO", "N\0", "\uff2e\uff2f"])
def test_any_other_country_is_rejected(sent: str) -> None:
    assert code(COUNTRY, sent) == "unknown_country"


def test_iso_3166_has_249_assigned_codes() -> None:
    assert len(COUNTRIES) == 249


@pytest.mark.parametrize(
    ("sent", "expected"),
    [("", "blank"), ("x" * 201, "too_long"), ("Line 1\nLine 2", "control_character"), (5, "string_type")],
)
def test_a_wrong_address_line_is_rejected_with_its_code(sent: object, expected: str) -> None:
    assert code(LINE, sent) == expected


@pytest.mark.parametrize("missing", ["line1", "city", "country"])
def test_an_address_needs_a_line_a_city_and_a_country(missing: str) -> None:
    address = {"line1": "Karl Johans gate 1", "city": "Oslo", "country": "NO"}
    del address[missing]
    with pytest.raises(ValidationError) as caught:
        Address.model_validate(address)
    assert [(e["loc"], e["type"]) for e in caught.value.errors()] == [((missing,), "missing")]


def test_a_publishers_typo_in_an_address_is_an_error_but_the_service_ignores_it() -> None:
    address = {"line1": "Karl Johans gate 1", "city": "Oslo", "country": "NO", "postcode": "0154"}
    with pytest.raises(ValidationError, match="postcode"):
        Address.model_validate(address)
    assert Address.model_validate(address, extra="ignore").postal_code is None


PUBLISHED: dict[str, Any] = {
    "id": "0192d3a0-0000-7000-8000-000000000001",
    "name": "Acme",
    "domain": None,
    "created_at": "2025-01-02T03:04:05.678901Z",
    "updated_at": "2025-01-02T03:04:05.678901Z",
    "primary_address": {
        "line1": "Street 1",
        "line2": None,
        "city": "Pristina",
        "region": None,
        "postal_code": None,
        "country": "XK",
    },
    "deactivated": False,
    "deactivated_at": None,
    "version": 1,
}


def test_a_published_organization_is_read_after_rules_became_stricter_and_fields_were_added() -> None:
    organization = Organization.model_validate(
        PUBLISHED | {"billing": {"plan": "gold"}, "primary_address": PUBLISHED["primary_address"] | {"floor": "3"}}
    )
    assert organization.id == UUID("0192d3a0-0000-7000-8000-000000000001")
    assert organization.created_at == datetime(2025, 1, 2, 3, 4, 5, 678901, UTC)
    assert isinstance(organization.primary_address, Address)
    assert organization.primary_address.country == "XK"
    assert not hasattr(organization.primary_address, "floor")


def test_a_published_address_equals_the_one_that_was_sent() -> None:
    sent = Address(line1="Street 1", city="Oslo", country="NO")
    published = PUBLISHED | {"primary_address": {"line1": "Street 1", "city": "Oslo", "country": "NO", "line2": None}}
    assert Organization.model_validate(published).primary_address == sent


def test_a_published_address_must_still_have_its_lines() -> None:
    with pytest.raises(ValidationError, match="line1"):
        Organization.model_validate(PUBLISHED | {"primary_address": {"city": "Oslo", "country": "NO"}})


def test_an_organization_survives_a_round_trip_in_json() -> None:
    organization = Organization.model_validate(PUBLISHED)
    assert Organization.model_validate_json(organization.model_dump_json()) == organization
    assert organization.model_dump(mode="json") == PUBLISHED
