"""The organization as everybody outside sees it, and the rules of its fields.

The same annotated types check a publisher's input, the worker's commands and the HTTP edge's bodies, so a
field is right or wrong in one place only. Every validator returns the normalized value and raises a
`PydanticCustomError` whose type is the stable `code` of a field error.
"""

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

NAME_CHARS_MAX: Final = 200
DOMAIN_CHARS_MAX: Final = 253
"""RFC 1035, section 2.3.4: 255 octets on the wire are 253 characters of text."""
ADDRESS_LINE_CHARS_MAX: Final = 200

_COMPOSED_MAX: Final = 4
"""No more characters than these become one by NFKC. Longer text is not normalized: its cost grows with the square of
a row of combining marks, a second for 64 KiB."""
_REJECTED_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode controls, lone surrogates (no UTF-8 form), line and paragraph separators."""

IGNORABLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e001f\U000e0080-\U000e0fff"
)
"""What is shown as nothing, to stand in a regular expression's brackets: Default_Ignorable_Code_Point (UAX 44) without
the tags of flags. Most has its uses: joiners (Persian, Indic scripts, emoji), variation selectors, direction marks."""
_SEEN: Final = re.compile(rf"[^\s\u2800\U000e0000-\U000e007f{IGNORABLE}]")
"""The braille pattern without dots is a blank, too."""
_TURNS: Final = re.compile("[\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]")
"""Embeddings, overrides and isolates, by which text shows in another order than it has (UTR 36, section 2.5), and
annotations, which show as something else or not at all. A single name needs none of them; direction marks do."""
_TAG: Final = re.compile("[\U000e0000-\U000e007f]")
_FLAG: Final = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f")
"""A flag of a region (UTS 51, ED-14a): tags in other places are text that programs read and people don't see."""

_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
"""RFC 1123, section 2.1: letters, digits and inner hyphens, at most 63 a label."""
_USUAL_LABEL: Final = r"(?!-|xn--)[a-z0-9-]{1,63}(?<!-)"
_USUAL_HOST_NAME: Final = re.compile(rf"(?:{_USUAL_LABEL}\.)+(?![0-9]+$){_USUAL_LABEL}")
"""What nearly every domain is: fine at a glance. Anything else is checked label by label."""

COUNTRIES: Final = frozenset(
    (
        "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV "
        "BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES "
        "ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE "
        "IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY "
        "MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU "
        "NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM "
        "SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE "
        "VG VI VN VU WF WS YE YT ZA ZM ZW"
    ).split()
)
"""ISO 3166-1 alpha-2, the 249 officially assigned codes."""


def _reject_controls(text: str) -> None:
    flags = {place for flag in _FLAG.finditer(text) for place in range(*flag.span())}
    for place, character in enumerate(text):
        hides = _TURNS.match(character) or (_TAG.match(character) and place not in flags)
        if hides or unicodedata.category(character) in _REJECTED_CATEGORIES:
            raise PydanticCustomError(
                "control_character",
                "Character {place} is the control character {codepoint}; remove it",
                {"place": place + 1, "codepoint": f"U+{ord(character):04X}"},
            )


def _line(text: str, chars_max: int) -> str:
    """`text` after NFKC and trimming.

    Raises:
        PydanticCustomError: `control_character`, `blank` or `too_long`.
    """
    text = text.strip()
    seen = bool(text)
    if not text.isascii():
        if len(text) > chars_max * _COMPOSED_MAX:
            raise _too_long(text, chars_max)
        text = unicodedata.normalize("NFKC", text).strip()
        seen = _SEEN.search(text) is not None
    if not text.isprintable():
        _reject_controls(text)
    if not seen:
        raise PydanticCustomError("blank", "Must have at least one visible character")
    if len(text) > chars_max:
        raise _too_long(text, chars_max)
    return text


def _too_long(text: str, chars_max: int) -> PydanticCustomError:
    return PydanticCustomError(
        "too_long",
        "Must have at most {chars_max} characters, has {chars}",
        {"chars_max": chars_max, "chars": len(text)},
    )


def _name(text: str) -> str:
    return _line(text, NAME_CHARS_MAX)


def _address_line(text: str) -> str:
    return _line(text, ADDRESS_LINE_CHARS_MAX)


def _host_name(text: str) -> str:
    """`text` as a lower-case ASCII host name; Unicode labels must come in their IDNA form (`xn--…`).

    Raises:
        PydanticCustomError: `not_ascii`, `too_long`, `not_a_host_name`, `too_few_labels` or `numeric_top_label`.
    """
    if len(text) <= DOMAIN_CHARS_MAX and _USUAL_HOST_NAME.fullmatch(text):
        return text
    text = text.strip()
    if not text.isascii():
        raise PydanticCustomError("not_ascii", "Must be ASCII; send the IDNA form, whose labels begin with xn--")
    # After the check: some characters that aren't ASCII have a lower case that is (U+212A, the kelvin sign).
    text = text.lower()
    if len(text) > DOMAIN_CHARS_MAX:
        raise PydanticCustomError(
            "too_long",
            "Must have at most {chars_max} characters, has {chars}",
            {"chars_max": DOMAIN_CHARS_MAX, "chars": len(text)},
        )
    labels = text.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label) or not _decodes(label):
            raise PydanticCustomError(
                "not_a_host_name",
                "'{label}' is not a host name label: 1 to 63 of a-z, 0-9 and inner hyphens",
                {"label": label},
            )
    if len(labels) < 2:
        raise PydanticCustomError("too_few_labels", "Must be a domain name with two or more labels, such as acme.com")
    if labels[-1].isdigit():
        raise PydanticCustomError("numeric_top_label", "Must be a domain name such as acme.com, not an IP address")
    return text


def _decodes(label: str) -> bool:
    """Whether an IDNA label is the punycode (RFC 3492) of something that needs it; other labels always are fine."""
    if not label.startswith("xn--"):
        return True
    encoded = label[4:]
    try:
        decoded = encoded.encode("ascii").decode("punycode")
        # One spelling a name: the decoder also takes forms that no encoder writes.
        return not decoded.isascii() and decoded.encode("punycode").decode("ascii") == encoded
    except UnicodeError:
        return False


def _country(text: str) -> str:
    if text not in COUNTRIES:
        raise PydanticCustomError(
            "unknown_country", "Must be an ISO 3166-1 alpha-2 country code in upper case, such as NO"
        )
    return text


Name = Annotated[
    str,
    AfterValidator(_name),
    Field(description="1 to 200 characters after NFKC and trimming", json_schema_extra={"minLength": 1}),
]
Domain = Annotated[
    str, AfterValidator(_host_name), Field(description="Lower-case ASCII or IDNA host name, 2 or more labels")
]
AddressLine = Annotated[
    str,
    AfterValidator(_address_line),
    Field(description="1 to 200 characters after NFKC and trimming", json_schema_extra={"minLength": 1}),
]
Country = Annotated[
    str,
    AfterValidator(_country),
    Field(description="ISO 3166-1 alpha-2", json_schema_extra={"pattern": "^[A-Z]{2}$"}),
]


class Address(BaseModel):
    """A postal address; always replaced whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line1: AddressLine
    line2: AddressLine | None = None
    city: AddressLine
    region: AddressLine | None = None
    postal_code: AddressLine | None = None
    country: Country


class _PublishedAddress(BaseModel):
    """An address as some version of the service published it: lines are text, and there may be new ones."""

    model_config = ConfigDict(extra="ignore")

    line1: str
    line2: str | None = None
    city: str
    region: str | None = None
    postal_code: str | None = None
    country: str


def _as_published(content: object) -> object:
    """Take an address that was published already as it is.

    A subscriber must be able to read what was allowed when it was written, and countries its copy of this package
    has not heard of: a rule of ours that tightens may not stop its consumer.
    """
    if isinstance(content, dict):
        return Address.model_construct(**_PublishedAddress.model_validate(content).model_dump())
    return content


class Organization(BaseModel):
    """One organization, as in `orgs.state`, events, results and HTTP. Times are UTC."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: UUID
    name: str
    domain: str | None
    created_at: datetime
    updated_at: datetime
    primary_address: Annotated[Address | None, BeforeValidator(_as_published)]
    deactivated: bool
    deactivated_at: datetime | None
    version: int = Field(ge=1, description="1, 2, 3 … per organization, one step per change")
