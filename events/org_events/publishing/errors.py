"""What the client raises, split by what to do about it. A rejected command is none of these: it is a `Result`."""

from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from org_events.commands import AnyCommand


class ClientError(Exception):
    """Whatever the client raises by itself."""


class NotConnected(ClientError):
    """The client was used before it was started or after it was stopped; nothing was sent."""


class KafkaUnavailable(ClientError):
    """Kafka did not answer in time, and nothing was sent: try again later."""


class KafkaRefused(ClientError):
    """Kafka refuses what was asked (rights, settings), and nothing was sent: trying again won't help."""


class TokenUnavailable(ClientError):
    """The issuer gave no token in time, and nothing was sent: try again later."""


class TokenRefused(ClientError):
    """The issuer gives no token (credentials, scope, settings), and nothing was sent: trying again won't help."""


class TopicMissing(ClientError):
    """A topic of the contract does not exist under this prefix; nothing was sent."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"Topic {topic} does not exist. Check the prefix, or create the topics: orgs topics apply")
        self.topic = topic


class OutcomeUnknown(ClientError):
    """No outcome came in time. The command may have been applied, or may still be.

    Send the same command again with the same command id: that is always safe, it takes effect at most once
    (guarantee 1), and the answer is the first outcome.

        except OutcomeUnknown as unknown:
            result = await orgs.execute(unknown.command, command_id=unknown.command_id)

    Attributes:
        command_id: Of the command.
        command: As it was sent; None where only its outcome was asked for.
        confirmed: Whether Kafka has confirmed the command: then it will have an outcome, however long that takes.
        partition: Where Kafka has it, once it is confirmed; else None.
        offset: In that partition.
    """

    def __init__(
        self,
        why: str,
        command_id: UUID,
        command: "AnyCommand | None" = None,
        *,
        confirmed: bool = False,
    ) -> None:
        what = "the command" if command is None else command.type
        super().__init__(
            f"The outcome of {what} {command_id} is unknown: {why}. It may have been applied. Send the same command "
            "again with the same command id: that is safe, it takes effect at most once."
        )
        self.partition: int | None = None
        self.offset: int | None = None
        self.command_id = command_id
        self.command = command
        self.confirmed = confirmed
