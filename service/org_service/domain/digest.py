"""What makes two requests the same request: type and canonical body, however they were spelled or sent. Pure."""

from hashlib import blake2b
from typing import Final

_DIGEST_BYTES: Final = 16


def request_digest(command_type: bytes, canonical: bytes) -> bytes:
    """The digest that tells a repeated command from another one under the same id.

    Args:
        command_type: The `ce_type`.
        canonical: The JSON body with sorted keys and no white space; as it was sent where it can't be parsed.
    """
    return blake2b(command_type + b"\n" + canonical, digest_size=_DIGEST_BYTES).digest()
