"""The group `auth`."""

from typing import Annotated, Literal

from pydantic import Field

from org_service.settings.group import SettingsGroup
from org_service.settings.values import FROM_JSON


class AuthSettings(SettingsGroup):
    """Who acts: tokens (JWT), and what a role may do."""

    commands: Literal["tokens", "trusted"] = Field(
        default="tokens",
        description="Commands from Kafka without a token: `tokens` rejects them with 401, `trusted` accepts "
        "them with ce_actor as actor, for brokers that are closed to all but trusted publishers. A "
        "token that is sent is always verified",
    )
    issuer: str = Field(default="", description="`iss` that a token must have")
    audience: str = Field(default="orgs", min_length=1, description="`aud` that a token must have or include")
    algorithms: Annotated[tuple[Literal["RS256", "ES256", "EdDSA", "Ed25519"], ...], *FROM_JSON] = Field(
        default=("RS256", "ES256", "EdDSA"),
        min_length=1,
        description="Accepted signature algorithms, as a JSON array; Ed25519 is another name of EdDSA, either "
        "accepts both",
    )
    jwks_file: str = Field(
        default="", description="Public keys (JWK Set, RFC 7517) in a file; read again when it changes"
    )
    jwks_url: str = Field(default="", description="Public keys from a URL, instead of a file")
    jwks_max_age_s: float = Field(default=300, gt=0, le=86_400, description="The keys are fetched again after this")
    jwks_retry_s: float = Field(
        default=5,
        gt=0,
        le=3_600,
        description="Shortest time between fetches for tokens that no key verifies; these are judged after the next "
        "fetch",
    )
    jwks_stale_max_s: float = Field(
        default=86_400,
        ge=1,
        le=2_592_000,
        description="How long keys stay in force that cannot be read again: until then an issuer's outage has "
        "no effect, and a key withdrawn meanwhile expires with them",
    )
    jwks_timeout_s: float = Field(default=5, gt=0, le=60, description="Time-out of one fetch")
    leeway_s: float = Field(default=5, ge=0, le=300, description="Allowed difference between clocks")
    token_bytes_max: int = Field(default=8_192, ge=256, le=65_536, description="A longer token is rejected unread")
    tokens_cached: int = Field(
        default=10_000, ge=0, le=1_000_000, description="Verified tokens kept in memory; 2 KB each"
    )
    policy_file: str = Field(default="", description="What roles are denied (TOML); empty uses the packaged policy")
