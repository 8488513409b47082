"""Who may enter: the actor of each request, from its token or from a publisher that is trusted.

A token is judged as of the moment the broker took the record, so a replay of old commands says what it said then. Most
tokens were seen before and cost a look into a table. Where no key verifies a token, only keys that are read later can
tell whether its key is a new one or a forged one. Its partition waits for them, alone: it is left at that record, the
consumer goes back to it once the keys were read, and all other partitions continue. So whoever makes up key ids delays
the partitions they may write to, each time until the next read, and nobody else.
"""

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from org_events.results import ProblemType
from org_service.auth.policy import load_policy
from org_service.auth.tokens import TokenRejected, Tokens, parse_bearer
from org_service.domain.policy import Policy
from org_service.domain.requests import LOG_APPEND_TIME, Rejected, Request, Unreadable, read_broker_time
from org_service.settings import AuthSettings

NO_TOKEN = "The header authorization is missing; it must be Bearer followed by a token."  # noqa: S105 - no secret
NOT_STAMPED = (
    "The broker did not stamp this record with its own time, so the token cannot be verified: the topic "
    "must have message.timestamp.type=LogAppendTime. Send the command again, under another id, once it has."
)
NO_ISSUER = "This service accepts no tokens: no issuer is configured."
_READ_S_MIN: Final = 2.0
"""Keys read within this time are as good as keys read now, for a record from before."""


Voucher = Callable[[Request], str | None]
"""Knows whose token it was that no key verifies any more; None where it was nobody's."""


class Wait(NamedTuple):
    """A partition that waits for keys."""

    offset: int
    """Of the first record that waits; those behind it wait too."""
    since_s: float
    """When that one was here, by the monotonic clock."""
    end: int
    """Of the last one that came behind it."""
    end_since_s: float
    """When that was."""
    reads: int
    """How often the keys had been read before."""


class Authenticator:
    """Finds out who acts."""

    def __init__(self, auth: AuthSettings, *, policy: Policy | None = None, voucher: Voucher | None = None) -> None:
        """Read the policy.

        Args:
            auth: Who may enter.
            policy: What each role is denied, in place of the policy that the settings name.
            voucher: Asked of a token that no key verifies, in place of waiting for other keys: what was decided long
                ago is decided again when the issuer lists other keys.

        Raises:
            ConfigurationError: The policy has mistakes.
        """
        self.policy = load_policy(auth) if policy is None else policy
        """What each role is denied."""
        self.trusts = auth.commands == "trusted"
        """Whether a command without a token is its publisher's word."""
        self._tokens = None if self.trusts and not auth.issuer else Tokens(auth)
        self._leeway_s = auth.leeway_s
        self._fresh_s = max(_READ_S_MIN, 2 * auth.jwks_retry_s)
        self._voucher = voucher
        self._waiting: dict[int, Wait] = {}
        self._seen: dict[int, Wait] = {}
        """Of partitions that waited: which of their records are here for longer than it seems."""

    @property
    def waiting(self) -> Mapping[int, Wait]:
        """The partitions that wait for keys; none of their records from `offset` on were admitted."""
        return self._waiting

    async def start(self) -> None:
        """Read the issuer's keys, where one is named.

        Raises:
            ConfigurationError: The settings name no issuer, though a token is needed, or the keys can't be used.
            RetryError: The keys can't be fetched now; may be called again.
        """
        if self._tokens is not None:
            await self._tokens.start()

    def admit(self, requests: Iterable[Request | Unreadable]) -> list[Request | Unreadable]:
        """Requests with their actor, or rejected; without those that wait for keys, and what is behind them.

        Never raises. Of a partition, requests come in order, and after `go_on` from the one on that waited.
        """
        now_s = time.monotonic()
        admitted: list[Request | Unreadable] = []
        for request in requests:
            record = request.record
            if self._waiting and (wait := self._waiting.get(record.partition)) is not None:
                self._waiting[record.partition] = wait._replace(end=record.offset, end_since_s=now_s)
                continue
            decided = self._judge(request, now_s)
            if decided is not None:
                admitted.append(decided)
            else:
                assert self._tokens is not None
                at, reads = record.offset, self._tokens.reads
                # guarantee 7: one partition waits for the issuer's keys, and no other.
                self._waiting[record.partition] = Wait(at, now_s, at, now_s, reads)
        return admitted

    def may_go_on(self, partition: int) -> bool:
        """Whether the keys were read since a partition waits."""
        assert self._tokens is not None
        return self._tokens.reads > self._waiting[partition].reads

    def go_on(self, partition: int) -> None:
        """Admit the records of a partition again, the next of which must be the first one that waits."""
        self._seen[partition] = self._waiting.pop(partition)

    def forget(self) -> None:
        """Hear that partitions moved: whoever has them now begins where they were acknowledged."""
        self._waiting.clear()
        self._seen.clear()

    def checks(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        """What `/readyz` asks about tokens; nothing where none are judged."""
        return {} if self._tokens is None else {"keys": self._tokens.check}

    def _judge(self, request: Request | Unreadable, now_s: float) -> Request | Unreadable | None:
        """The request with its actor, or rejected; None where only keys that are read later can tell."""
        if isinstance(request, Unreadable):
            return request
        if isinstance(request.command, Rejected):
            # Nobody has verified who that is: the journal must not say it.
            return request if self.trusts and request.authorization is None else request._replace(actor=None)
        if request.authorization is None:
            return request if self.trusts else _reject(request, NO_TOKEN)
        if self._tokens is None:
            return _reject(request, NO_ISSUER)
        if request.record.timestamp_type != LOG_APPEND_TIME:  # a publisher could choose when its token was valid
            return _reject(request, NOT_STAMPED)
        try:
            token, at = parse_bearer(request.authorization), read_broker_time(request.record)
            user_id = self._tokens.find_known(token, at)
            if user_id is None:
                since_s = math.inf if self._voucher is not None else self._since_s(request, at, now_s)
                user_id = self._tokens.judge(token, at, since_s)
            if user_id is None and self._voucher is not None:
                # Where nobody vouches, these keys reject it, and say why.
                user_id = self._voucher(request) or self._tokens.judge(token, at, -math.inf)
        except TokenRejected as error:
            return _reject(request, str(error))
        return None if user_id is None else request._replace(actor=user_id, user_id=user_id)

    def _since_s(self, request: Request, at: datetime, now_s: float) -> float:
        """When a record was certainly here: keys read since then reject its token for good.

        By our clock alone; or by the broker's, as far as clocks may differ. Of long ago no keys are taken that were not
        read lately, so that a key which is listed again for a replay counts at once.
        """
        record = request.record
        seen = self._seen.get(record.partition)
        if seen is not None and record.offset <= seen.end:
            return seen.since_s if record.offset == seen.offset else seen.end_since_s
        published_s = now_s - (time.time() - at.timestamp()) + self._leeway_s
        return min(now_s, max(published_s, now_s - self._fresh_s))

    async def close(self) -> None:
        """Close what fetches keys."""
        if self._tokens is not None:
            await self._tokens.close()


def _reject(request: Request, detail: str) -> Request:
    command = Rejected(request.command.type, detail, ProblemType.UNAUTHENTICATED)
    return request._replace(command=command, actor=None)
