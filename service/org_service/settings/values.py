"""Values that more than one group has: ports, addresses, URLs, arrays; and how a value is written as text."""

import json
import re
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

Port = Annotated[int, Field(ge=0, le=65535)]
ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s\[\]:/@]*)(:[0-9]{1,5})?")
"""A host, or an IPv6 address in brackets, and a port."""


def read_array(given: Any) -> Any:
    """The variable's text as JSON; whoever builds settings in code gives a tuple."""
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError:
        raise ValueError('must be a JSON array of strings: ["…"]') from None


FROM_JSON: Final = (NoDecode, BeforeValidator(read_array))
"""Annotations of a tuple that is a JSON array in its variable."""


def http_url(url: str) -> str:
    """A URL that can be asked, without the white space around it that a file leaves.

    Raises:
        ValueError: It is none; the message says what is wrong.
    """
    url = url.strip()
    if not re.match(r"(?i)https?://[^/\s]", url):
        raise ValueError("must be an http or https URL, such as https://orgs.example.com")
    if not re.fullmatch(r"[\x21-\x7e]+", url):
        raise ValueError("must be ASCII without white space; use the xn-- form of an international host name")
    try:
        host, _ = urlsplit(url).hostname, urlsplit(url).port
    except ValueError:
        host = None
    if not host:
        raise ValueError("must have a host, and if it has a port, one of 0 to 65535")
    return url


def as_text(value: object) -> str:
    """A value, not a secret one, as its variable would say it."""
    if isinstance(value, bool | tuple):
        return json.dumps(value)
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)
