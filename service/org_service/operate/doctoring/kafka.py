"""What the guarantees stand on in Kafka. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from org_service.kafka.topics import COPIES_MIN, Difference
from org_service.operate.doctoring.facts import INTERNAL_TOPICS, Kafka
from org_service.operate.doctoring.findings import Finding, Verdict, holds
from org_service.settings import Settings

CLOCK_AHEAD_S: Final = 5.0
"""As `ORGS_AUTH__LEEWAY_S`; the time that reading takes makes a record older, never newer."""
OFFSETS_KEPT_MIN: Final = 24 * 60
"""Minutes. A group that nobody is in for longer begins again: workers read all of the topic."""
_NEVER_FLUSHED: Final = str(2**63 - 1)
_OF_SETTING: Final[Mapping[str, tuple[int, ...]]] = {
    "partitions": (4, 7, 12),
    "partitions with a leader": (6,),
    "cleanup.policy": (2, 5, 11, 12),
    "message.timestamp.type": (8,),
    "max.message.bytes": (3, 6),
    "min.insync.replicas": (2, 3, 4),
    "unclean.leader.election.enable": (2, 3, 4),
    "retention.ms": (2,),
    "retention.bytes": (2,),
    "delete.retention.ms": (5, 8, 12),
}
"""The guarantees that stand on a topic's setting; what is not here is a matter of taste."""
_VOID: Final = frozenset({"min.insync.replicas", "unclean.leader.election.enable", "retention.bytes"})
"""Processes start on such topics, and what was acknowledged may be gone all the same."""
_UNBOUNDED: Final = -1
_OPEN: Final = "allow.everyone.if.no.acl.found"


def judge(found: Kafka, settings: Settings) -> Iterator[Finding]:
    """All findings about the brokers."""
    yield holds((2, 3, 4), "acks", "all, idempotent: our own producers know nothing else")
    yield from _topics(found)
    yield from _replicas(found)
    yield from _brokers(found, settings)
    yield from _access(found, settings)
    if found.position is not None:
        advice = "see 'Kafka has more than the database' and orgs.relay in docs/operating.md"
        yield Finding((3, 4, 11), settings.kafka.topics.relay, Verdict.VOID, found.position, advice)
    yield _clock(found.last_command_ahead_s)


def _topics(found: Kafka) -> Iterator[Finding]:
    if found.plans is None:
        advice = "allow our login DescribeConfigs on our topics"
        yield Finding((2, 3, 4, 5, 8), "topics", Verdict.UNKNOWN, "their settings are not shown", advice)
        return
    wrong = 0
    for plan in found.plans:
        name = plan.spec.name
        if not plan.exists and name in found.operations:
            wrong += 1
            advice = "allow our login Describe on it"
            yield Finding((2, 3, 6), name, Verdict.UNKNOWN, "our login may not see it", advice)
        elif not plan.exists:
            wrong += 1
            yield Finding((2, 3, 6), name, Verdict.VOID, "it does not exist", "run `orgs topics apply`")
        for each in plan.differences:
            guarantees = _OF_SETTING.get(each.setting)
            if guarantees is None or _is_more(each):
                continue
            wrong += 1
            verdict = Verdict.VOID if each.harmful or each.setting in _VOID else Verdict.WEAK
            yield Finding(guarantees, name, verdict, f"{each.setting} is {each.found}, not {each.wanted}", each.advice)
    if not wrong:
        yield holds(
            (2, 3, 4, 5, 6, 7, 8, 11, 12), "topics", "partitions, clean-up, times, sizes and retention as specified"
        )
    yield from _flushing(found.configs)


def _is_more(difference: Difference) -> bool:
    """Whether records are only kept for longer than they must."""
    if difference.setting != "retention.ms":
        return False
    return int(difference.found) == _UNBOUNDED or 0 <= int(difference.wanted) < int(difference.found)


def _flushing(configs: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    if _are_flushed(configs):
        yield holds((2, 4), "flush", "each record is on disk before it is acknowledged")


def _are_flushed(configs: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether each record is on disk before it is acknowledged; where topics don't say, as brokers have it."""
    return bool(configs) and all(each.get("flush.messages", _NEVER_FLUSHED) == "1" for each in configs.values())


def _replicas(found: Kafka) -> Iterator[Finding]:
    single = [name for name, each in found.replicas.items() if any(copies < COPIES_MIN for copies, _ in each)]
    if single:
        ours = [name for name in single if name not in INTERNAL_TOPICS]
        flushed = _are_flushed(found.configs)
        yield Finding(
            (2, 3, 4, 6),
            "replication",
            Verdict.WEAK,
            f"one copy of {', '.join(ours[:3] + [each for each in single if each in INTERNAL_TOPICS])}"
            + (f" and {len(ours) - 3} more" if len(ours) > 3 else "")
            + ": one disk takes them"
            + ("" if flushed else ", and a power loss takes what was acknowledged and not yet written to it"),
            "three brokers or more, ORGS_KAFKA__REPLICATION_FACTOR=3 for new topics, kafka-reassign-partitions.sh for "
            "those that are there"
            + ("" if flushed else "; until then log.flush.interval.messages=1 on the broker, which costs speed"),
        )
    short = [
        f"{name}[{number}]"
        for name, each in found.replicas.items()
        for number, (copies, in_sync) in enumerate(each)
        if copies >= COPIES_MIN and in_sync < copies
    ]
    if short:
        said = f"{len(short)} partitions have a copy that lags, {', '.join(short[:3])} the first"
        yield Finding((2, 4, 6), "replicas in sync", Verdict.WEAK, said, "see the brokers' logs")
    if not single and not short:
        yield holds((2, 3, 4, 6), "replication", "two copies or more of each partition, all in sync")


def _brokers(found: Kafka, settings: Settings) -> Iterator[Finding]:
    if not found.brokers:
        advice = "allow our login DescribeConfigs on the cluster"
        yield Finding((3, 4, 6, 8), "brokers", Verdict.UNKNOWN, "their settings are not shown", advice)
        return
    before = {broker: list(_broker(f"broker {broker}", config, settings)) for broker, config in found.brokers.items()}
    for each in before.values():
        yield from each
    if not any(before.values()):
        yield holds((3, 4, 6), "brokers", "time-outs of transactions and sessions fit to ours")


def _broker(about: str, config: Mapping[str, str], settings: Settings) -> Iterator[Finding]:
    ours = settings.relay.transaction_timeout_ms
    if (most := int(config["transaction.max.timeout.ms"])) < ours:
        advice = f"set transaction.max.timeout.ms={ours} on the brokers, or lower ORGS_RELAY__TRANSACTION_TIMEOUT_MS"
        said = f"transaction.max.timeout.ms is {most}: the relay, which asks for {ours}, can't start"
        yield Finding((3, 4), about, Verdict.VOID, said, advice)
    session = settings.worker.session_timeout_ms
    least, most = (int(config[f"group.{end}.session.timeout.ms"]) for end in ("min", "max"))
    if not least <= session <= most:
        advice = "set ORGS_WORKER__SESSION_TIMEOUT_MS between them"
        said = f"sessions of {least} to {most} ms are accepted: workers, which ask for {session}, can't join"
        yield Finding((2, 6), about, Verdict.VOID, said, advice)
    if int(config["offsets.retention.minutes"]) < OFFSETS_KEPT_MIN:
        said = f"offsets.retention.minutes is {config['offsets.retention.minutes']}: a group that is stopped for longer"
        advice = "set offsets.retention.minutes=10080 on the brokers"
        yield Finding((2, 6), about, Verdict.WEAK, f"{said} loses its place", advice)
    if config["auto.create.topics.enable"] == "true":
        said = "auto.create.topics.enable: a typo makes a topic with settings of its own"
        yield Finding((2, 4), about, Verdict.WEAK, said, "set auto.create.topics.enable=false on the brokers")


def _access(found: Kafka, settings: Settings) -> Iterator[Finding]:
    config = next(iter(found.brokers.values()), None)
    if config is None:
        said, closed = "whether brokers have rules is not shown", None
    elif not config.get("authorizer.class.name"):
        said, closed = "brokers have no authorizer: whoever reaches one may write events, states and positions", False
    elif (open_to_all := config.get(_OPEN, "false")) == "true":
        said, closed = f"{_OPEN}: whoever reaches a broker may write where no rule is", False
    elif open_to_all != "false":  # brokers hide the settings of an authorizer
        said, closed = f"{_OPEN} is set to what brokers don't show: see that it is false", None
    else:
        said, closed = "brokers deny what no rule allows", True
    trusted = settings.auth.commands == "trusted"
    guarantees = (3, 4, 5, 8, 11, 12)
    if closed:
        yield holds(guarantees, "access to topics", said)
    else:
        advice = "an authorizer, and rules by which the relay alone may write what it publishes"
        verdict = Verdict.UNKNOWN if closed is None else Verdict.WEAK
        yield Finding(guarantees, "access to topics", verdict, said, advice)
    if trusted and not closed:
        yield Finding(
            (8,),
            "ORGS_AUTH__COMMANDS",
            Verdict.UNKNOWN if closed is None else Verdict.VOID,
            "trusted: whoever may write to orgs.commands acts as anybody",
            "let the brokers' rules allow that to trusted publishers alone, or set ORGS_AUTH__COMMANDS=tokens",
        )
    elif not trusted:
        yield holds((8,), "ORGS_AUTH__COMMANDS", "tokens")
    if not settings.kafka.security_protocol.endswith("SSL"):
        said = f"{settings.kafka.security_protocol}: tokens and data cross the network in clear"
        advice = "set ORGS_KAFKA__SECURITY_PROTOCOL to SSL or SASL_SSL"
        yield Finding((8,), "encryption to Kafka", Verdict.WEAK, said, advice)
    yield from _operations(found, settings)


def _operations(found: Kafka, settings: Settings) -> Iterator[Finding]:
    topics = settings.kafka.topics
    published = (topics.results, topics.events, topics.state, topics.relay)
    needed = {topic: {"READ", "WRITE", "DESCRIBE_CONFIGS"} for topic in (topics.commands, *published)}
    needed |= {topic: {"READ", "DESCRIBE_CONFIGS"} for topic in (topics.memberships, topics.partnerships, topics.staff)}
    lacking = [
        f"{', '.join(sorted(each))} on {name}"
        for name, wanted in needed.items()
        if name in found.operations and (each := wanted - found.operations[name])
    ]
    if lacking:
        said = f"our login lacks {'; '.join(lacking)}"
        advice = "allow it to the logins of the roles that need it, and run this with each of them"
        yield Finding((3, 6), "rules tried out", Verdict.UNKNOWN, said, advice)
    else:
        yield holds((3, 6), "rules tried out", "our login may read and write what the roles do")


def _clock(ahead_s: float | None) -> Finding:
    about = "clock of the brokers"
    if ahead_s is not None and ahead_s > CLOCK_AHEAD_S:
        said = f"the last command came {ahead_s:.0f} s from now: tokens are judged by that clock"
        return Finding((8,), about, Verdict.VOID, said, "let brokers and this machine follow NTP")
    return holds((8,), about, "no command yet" if ahead_s is None else "not ahead of ours, by the last command")
