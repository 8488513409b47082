"""Every setting, with unit, bound and reason. Environment variables: `ORGS_` + group + `__` + name.

`ORGS_KAFKA__BOOTSTRAP_SERVERS=broker:9092 ORGS_WORKER__BATCH_RECORDS_MAX=500 orgs serve --role worker`
"""

import json
import re
import ssl
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from org_events.topics import DAY_MS, PARTITIONS, Topics


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Port = Annotated[int, Field(ge=0, le=65535)]
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s\[\]:/@]*)(:[0-9]{1,5})?")
"""A host, or an IPv6 address in brackets, and a port."""


def _array(given: Any) -> Any:
    """The variable's text as JSON; whoever builds settings in code gives a tuple."""
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError:
        raise ValueError('must be a JSON array of texts: ["…"]') from None


def _http(url: str) -> str:
    """A URL that can be asked, without the white space around it that a file leaves.

    Raises:
        ValueError: It is none; the message says what is wrong.
    """
    url = url.strip()
    if not re.match(r"(?i)https?://[^/\s]", url):
        raise ValueError("must be an http or https URL, such as https://orgs.example.com")
    if not re.fullmatch(r"[\x21-\x7e]+", url):
        raise ValueError("must be ASCII without white space; a host of other letters has a form that begins with xn--")
    try:
        host, _ = urlsplit(url).hostname, urlsplit(url).port
    except ValueError:
        host = None
    if not host:
        raise ValueError("must have a host, and a port of 0 to 65535 if any")
    return url


_FromJson = (NoDecode, BeforeValidator(_array))


def as_text(value: object) -> str:
    """A value, not a secret one, as its variable would say it."""
    if isinstance(value, bool | tuple):
        return json.dumps(value)
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


class Kafka(_Group):
    """How to reach Kafka, and the shape of its topics."""

    bootstrap_servers: str = Field(default="127.0.0.1:9092", description="host:port, comma-separated")
    topic_prefix: str = Field(default="", max_length=100, description="Put before every topic name, group and relay id")
    partitions: int = Field(
        default=PARTITIONS, ge=1, le=1000, description="Of each data topic, when topics are created"
    )
    replication_factor: int = Field(
        default=-1,
        ge=-1,
        le=32767,
        description="Of every topic, when topics are created; -1 takes the broker's default",
    )
    events_retention_ms: int = Field(default=90 * DAY_MS, ge=-1, description="Of orgs.events; -1 keeps them for ever")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_ca_file: str = Field(default="", description="PEM file; empty takes the system's certificate authorities")
    request_timeout_ms: int = Field(
        default=20_000, ge=1_000, le=300_000, description="One request; a broker slower than this counts as away"
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _servers_can_be_asked(cls, servers: str) -> str:
        for server in servers.split(","):
            if not server.strip() or not _ADDRESS.fullmatch(server.strip()):
                raise ValueError("must be host:port, comma-separated")
        return servers

    @field_validator("topic_prefix")
    @classmethod
    def _topics_can_be_named(cls, prefix: str) -> str:
        return Topics(prefix).prefix

    @model_validator(mode="after")
    def _certificates_can_be_read(self) -> "Kafka":
        """A wrong path would look like an outage, and be waited for."""
        try:
            self.ssl_context()
        except OSError as error:
            raise ValueError(f"ssl_ca_file {self.ssl_ca_file!r} can't be read as PEM: {error}") from error
        return self

    @property
    def topics(self) -> Topics:
        """The names of all topics."""
        return Topics(self.topic_prefix)

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context of a connection; None where the protocol has no TLS.

        Raises:
            OSError, ssl.SSLError: `ssl_ca_file` can't be read.
        """
        if not self.security_protocol.endswith("SSL"):
            return None
        return ssl.create_default_context(cafile=self.ssl_ca_file or None)

    def connection(self) -> dict[str, Any]:
        """The connection arguments of every aiokafka client; raises as `ssl_context` does."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "request_timeout_ms": self.request_timeout_ms,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context(),
        }
        if self.security_protocol.startswith("SASL"):
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password.get_secret_value(),
            }
        return arguments


class Database(_Group):
    """How to reach Postgres."""

    url: SecretStr = Field(
        default=SecretStr("postgresql://localhost/orgs"), description="postgresql://user:password@host/db"
    )
    assume_role: bool = Field(
        default=True,
        description="SET ROLE to orgs_worker, orgs_relay, orgs_edge … on each connection; false where the login "
        "already has just those rights",
    )
    pool_size: int = Field(default=5, ge=1, le=100, description="Connections of one process")
    connect_timeout_s: float = Field(default=10, gt=0, le=120, description="To open a connection")
    statement_timeout_s: float = Field(
        default=30,
        gt=0,
        le=300,
        description="One statement; a batch waits for the locks of other workers' batches",
    )

    @property
    def address(self) -> str:
        """Where it is and who connects, for messages: never a password."""
        parts = urlsplit(self.url.get_secret_value())
        given = dict(parse_qsl(parts.query))
        user = parts.username or given.get("user")
        hosts = parts.netloc.rpartition("@")[2] or ":".join(filter(None, (given.get("host"), given.get("port"))))
        name = parts.path.removeprefix("/") or given.get("dbname", "")
        return f"{unquote(user)}@{unquote(hosts)}/{unquote(name)}" if user else f"{unquote(hosts)}/{unquote(name)}"

    @field_validator("url")
    @classmethod
    def _server_can_be_asked(cls, url: SecretStr) -> SecretStr:
        """Only what the driver trips over; it reads the rest. No error holds any of it."""
        try:
            parts = urlsplit(url.get_secret_value())
            servers = parts.netloc.rpartition("@")[2].split(",")
            good = parts.scheme in {"postgresql", "postgres"} and all(map(_ADDRESS.fullmatch, servers))
        except ValueError:
            good = False
        if not good:
            raise ValueError("must be postgresql://user:password@host:port/database, with @ in a password as %40")
        return url


class Worker(_Group):
    """Commands in."""

    host: str = Field(default="127.0.0.1", description="Of /livez, /readyz and /metrics")
    port: Port = Field(default=9101, description="0 takes a free one")
    group_id: str = Field(default="orgs-worker", min_length=1, description="Consumer group, after the topic prefix")
    batch_records_max: int = Field(
        default=4_000, ge=1, le=10_000, description="Records in one batch; more gains little and delays the first"
    )
    lanes: int = Field(
        default=2, ge=1, le=8, description="Transactions of one large batch side by side, parted by partition"
    )
    batch_timeout_ms: int = Field(
        default=10, ge=1, le=1_000, description="Wait for the first record; FastStream waits twice this when idle"
    )
    fetch_wait_ms: int = Field(
        default=100, ge=1, le=10_000, description="The broker's longest wait for data, long poll"
    )
    partition_fetch_bytes_max: int = Field(
        default=1024 * 1024,
        ge=65_536,
        le=64 * 1024 * 1024,
        description="Of one fetch; bounds memory with the partitions",
    )
    session_timeout_ms: int = Field(
        default=10_000,
        ge=6_000,
        le=300_000,
        description="A silent worker is dead after this; brokers take 6 s at least",
    )
    poll_interval_max_ms: int = Field(
        default=300_000, ge=10_000, le=3_600_000, description="A batch longer than this gives its partitions away"
    )
    queued_commands_max: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Of one organization, set aside until an operator decides about the first; more are refused (409)",
    )
    retry_wait_s: float = Field(default=0.1, gt=0, le=60, description="First wait of an outage; doubles, with jitter")
    retry_wait_max_s: float = Field(default=5, gt=0, le=300, description="Longest wait of an outage")
    stalled_after_s: float = Field(
        default=120, gt=0, le=3_600, description="/livez fails when the consume loop gave no sign of life for this long"
    )


class Relay(_Group):
    """Journal out."""

    host: str = Field(default="127.0.0.1", description="Of /livez, /readyz and /metrics")
    port: Port = Field(default=9102, description="0 takes a free one")
    name: str = Field(
        default="orgs", min_length=1, max_length=100, description="Key of its position record, transactional id"
    )
    batch_rows_max: int = Field(default=4_000, ge=1, le=50_000, description="Journal rows in one Kafka transaction")
    poll_interval_s: float = Field(default=1, gt=0, le=60, description="Longest wait when no NOTIFY comes")
    transaction_timeout_ms: int = Field(
        default=60_000, ge=1_000, le=900_000, description="The broker aborts a transaction left open for this long"
    )
    publish_timeout_s: float = Field(
        default=30, gt=0, le=600, description="One transaction; then its fate is unknown and the producer is rebuilt"
    )
    retry_wait_s: float = Field(default=0.1, gt=0, le=60, description="First wait of an outage; doubles, with jitter")
    retry_wait_max_s: float = Field(default=5, gt=0, le=300, description="Longest wait of an outage")
    stalled_after_s: float = Field(
        default=120, gt=0, le=3_600, description="/livez fails when the loop gave no sign of life for this long"
    )

    @model_validator(mode="after")
    def _one_transaction_is_no_stall(self) -> "Relay":
        if self.stalled_after_s <= self.publish_timeout_s:
            raise ValueError("stalled_after_s must be more than publish_timeout_s: a slow broker would be a restart")
        if self.transaction_timeout_ms < self.publish_timeout_s * 1000:
            raise ValueError("transaction_timeout_ms must not be less than publish_timeout_s: it would be aborted")
        return self


class Auth(_Group):
    """Who acts: tokens (JWT), and what a role may do."""

    commands: Literal["tokens", "trusted"] = Field(
        default="tokens",
        description="Commands from Kafka without a token: refused with 401, or trusted (the actor is ce_actor), for "
        "brokers that are closed to all but trusted publishers. A token is judged in either case",
    )
    issuer: str = Field(default="", description="`iss` that a token must have")
    audience: str = Field(default="orgs", min_length=1, description="`aud` that a token must have, or hold")
    algorithms: Annotated[tuple[Literal["RS256", "ES256", "EdDSA", "Ed25519"], ...], *_FromJson] = Field(
        default=("RS256", "ES256", "EdDSA"),
        min_length=1,
        description="Signatures that are accepted, as a JSON array; Ed25519 is another name of EdDSA, either accepts "
        "both",
    )
    jwks_file: str = Field(
        default="", description="Public keys (JWK Set, RFC 7517) in a file; read again when it changes"
    )
    jwks_url: str = Field(default="", description="Public keys from a URL, instead of a file")
    jwks_max_age_s: float = Field(default=300, gt=0, le=86_400, description="Keys are fetched again after this")
    jwks_retry_s: float = Field(
        default=5,
        gt=0,
        le=3_600,
        description="Shortest time between fetches for tokens that no key verifies; they are judged after the next one",
    )
    jwks_stale_max_s: float = Field(
        default=86_400,
        ge=1,
        le=2_592_000,
        description="How long keys are used that can't be read again: an issuer's outage costs nothing until then, and "
        "a key withdrawn meanwhile ends",
    )
    jwks_timeout_s: float = Field(default=5, gt=0, le=60, description="One fetch")
    leeway_s: float = Field(default=5, ge=0, le=300, description="By how much clocks may differ")
    token_bytes_max: int = Field(default=8_192, ge=256, le=65_536, description="A longer token is refused unread")
    tokens_cached: int = Field(default=10_000, ge=0, le=1_000_000, description="Verified tokens remembered; 2 KB each")
    policy_file: str = Field(default="", description="What roles are denied (TOML); empty takes the packaged policy")


class Edge(_Group):
    """HTTP and MCP."""

    host: str = Field(default="127.0.0.1", description="Of the API")
    port: Port = Field(default=9100, description="Of the API; 0 takes a free one")
    health_host: str = Field(
        default="127.0.0.1", description="Of /livez, /readyz and /metrics, which are not for the API's clients"
    )
    health_port: Port = Field(default=9103, description="Of /livez, /readyz and /metrics; 0 takes a free one")
    public_url: str = Field(default="", description="Where clients reach it, if not at host and port: for links")
    outcome_timeout_s: float = Field(
        default=10, gt=0, le=120, description="How long a change waits for its outcome; then the answer is 202"
    )
    body_bytes_max: int = Field(default=64 * 1024, ge=1_024, le=64 * 1024, description="Of a request; more is a 413")
    header_bytes_max: int = Field(default=16 * 1024, ge=1_024, le=256 * 1024, description="Of a request; more is a 431")
    rate_per_s: float = Field(
        default=50, gt=0, le=1_000_000, description="Requests of one actor, in each process; more is a 429"
    )
    rate_burst: int = Field(default=100, ge=1, le=1_000_000, description="Requests of one actor at once")
    concurrency_max: int = Field(
        default=1_000, ge=1, le=100_000, description="Callers' requests in flight; more is a 503 at once"
    )
    connections_max: int = Field(
        default=10_000,
        ge=16,
        le=1_000_000,
        description="Clients' connections; of more, idle ones without a caller are closed first. Each takes a file "
        "descriptor and up to 0.3 MB",
    )
    address_connections_max: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Connections from one address, where clients connect themselves; 0: no bound of its own, because "
        "behind a proxy all have one address",
    )
    cors_origins: Annotated[tuple[str, ...], *_FromJson] = Field(
        default=(), description="Origins of browsers let in, as a JSON array"
    )
    stalled_after_s: float = Field(
        default=120, gt=0, le=3_600, description="/livez fails when the loop gave no sign of life for this long"
    )

    @field_validator("public_url")
    @classmethod
    def _links_can_be_followed(cls, url: str) -> str:
        return url and _http(url)

    @property
    def drain_timeout_s(self) -> float:
        """By then every request in hand is answered, a change with 202 at the latest."""
        return self.outcome_timeout_s + 1


class Log(_Group):
    """What is written, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, else json"
    )


class Settings(BaseSettings):
    """All settings. Unknown names in a group are refused, so that a typo can't pass."""

    model_config = SettingsConfigDict(env_prefix="ORGS_", env_nested_delimiter="__", frozen=True, extra="ignore")

    kafka: Kafka = Kafka()
    database: Database = Database()
    worker: Worker = Worker()
    relay: Relay = Relay()
    auth: Auth = Auth()
    edge: Edge = Edge()
    log: Log = Log()
    api_url: str = Field(default="http://127.0.0.1:9100", description="Where `orgs mcp` finds the HTTP API")
    token: SecretStr = Field(default=SecretStr(""), description="Names the user of `orgs send` and `orgs mcp` (JWT)")
    drain_timeout_s: float = Field(
        default=6,
        gt=0,
        le=600,
        description="Worker and relay finish what they have in hand at SIGTERM; what isn't through then, in an outage, "
        "is let go and comes again. 4 s below the orchestrator's grace period",
    )

    @field_validator("token")
    @classmethod
    def _token_has_no_line_end(cls, token: SecretStr) -> SecretStr:
        """Files and secret stores leave one behind it."""
        return SecretStr(token.get_secret_value().strip())

    @field_validator("api_url")
    @classmethod
    def _api_can_be_asked(cls, url: str) -> str:
        return _http(url)
