"""Who may enter: the actor of each request, from its token or from a publisher that is trusted.

A token is judged as of the moment the broker took the record, so a replay of old commands says what it said then. Most
tokens were seen before and cost a look into a table; for the others the keys may have to be fetched, so they wait
outside the batch's transaction.
"""

from typing import NamedTuple

from org_events.results import ProblemType
from org_service.auth.policy import load_policy
from org_service.auth.tokens import TokenRefused, Tokens, bearer
from org_service.settings import Auth
from org_service.worker.records import LOG_APPEND_TIME, Refused, Request, Unreadable, broker_time

NO_TOKEN = "The header authorization is missing; it must be Bearer and a token."  # noqa: S105 - no secret
NOT_STAMPED = (
    "The broker did not stamp this record with its own time, so the token can't be judged: the topic must have "
    "message.timestamp.type=LogAppendTime. Send the command again, under another id, once it has."
)
NO_ISSUER = "This service takes no tokens: none of its settings names an issuer."


class Stranger(NamedTuple):
    """A request whose token was not seen before."""

    request: Request
    token: bytes


class Gate:
    """Finds out who acts."""

    def __init__(self, auth: Auth) -> None:
        """Read the policy.

        Raises:
            StopError: It has mistakes.
        """
        self.policy = load_policy(auth)
        """What each role is denied."""
        self._trusts = auth.commands == "trusted"
        self._tokens = None if self._trusts and not auth.issuer else Tokens(auth)

    async def start(self) -> None:
        """Read the issuer's keys, where one is named.

        Raises:
            StopError: The settings name no issuer, though a token is needed, or the keys can't be used.
            RetryError: The keys can't be had now; may be called again.
        """
        if self._tokens is not None:
            await self._tokens.start()

    def admit(self, request: Request | Unreadable) -> Request | Unreadable | Stranger:
        """The request with its actor or refused; a `Stranger` where `identify` must be asked. Never raises."""
        if isinstance(request, Unreadable):
            return request
        if isinstance(request.command, Refused):
            # Nobody has verified who that is: the journal must not say it.
            return request if self._trusts and request.authorization is None else request._replace(actor=None)
        if request.authorization is None:
            return request if self._trusts else _refuse(request, NO_TOKEN)
        if self._tokens is None:
            return _refuse(request, NO_ISSUER)
        if request.record.timestamp_type != LOG_APPEND_TIME:  # a publisher could choose when its token was valid
            return _refuse(request, NOT_STAMPED)
        try:
            token = bearer(request.authorization)
            user_id = self._tokens.known(token, broker_time(request.record))
        except TokenRefused as error:
            return _refuse(request, str(error))
        return Stranger(request, token) if user_id is None else _known(request, user_id)

    async def identify(self, stranger: Stranger) -> Request:
        """The request with its actor, or refused.

        Raises:
            RetryError: The keys can't be had now; ask again.
        """
        assert self._tokens is not None
        request, token = stranger
        try:
            user_id = await self._tokens.verify(token, broker_time(request.record))
        except TokenRefused as error:
            return _refuse(request, str(error))
        return _known(request, user_id)

    async def close(self) -> None:
        """Close what fetches keys."""
        if self._tokens is not None:
            await self._tokens.close()


def _known(request: Request, user_id: str) -> Request:
    return request._replace(actor=user_id, user_id=user_id)


def _refuse(request: Request, detail: str) -> Request:
    command = Refused(request.command.type, detail, ProblemType.UNAUTHENTICATED)
    return request._replace(command=command, actor=None)
