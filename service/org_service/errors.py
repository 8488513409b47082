"""Errors by what to do with them. A rejection is a value (`Decision`), never one of these.

Retry: wait and try the same thing again. TooSlow: try less at once, and wait where it can't be less. Refold: roll back,
read fresh data, decide again. DataRefused: halve the batch, park the culprit. Systemic: leave the work to other
processes, and try again later. Stop: end the process with a clear message; only an operator can fix it.

The others are for whoever started the program, and end what they asked for: nothing has to be undone. They differ by
what to mend: a setting, an input, the topics, a permission, the request itself, or a broken partition.
"""


class ServiceError(Exception):
    """Whatever the service itself raises. The message says what, where and what to do."""


class RetryError(ServiceError):
    """An outage: nothing was decided, nothing is lost; wait and try again."""


class UnreachableError(RetryError):
    """There is no way to Postgres now; the message says where it should be."""


class TooSlowError(RetryError):
    """Postgres ended a statement, or a transaction, that took too long: nothing was written; less may get through."""


class RefoldError(ServiceError):
    """Another transaction got in between: nothing was written; decide again on fresh data.

    Attributes:
        in_data: A clash that outlives every rival is in the data itself. Else (a deadlock, say) it is only with rivals.
    """

    def __init__(self, message: str, *, in_data: bool = False) -> None:
        super().__init__(message)
        self.in_data = in_data


class DataRefusedError(ServiceError):
    """The database rejects the data of one command in the batch: nothing was written."""


class SystemicError(ServiceError):
    """Our own code fails on too many commands: nothing was written; another process may do better."""


class StopError(ServiceError):
    """The process must end: going on would do harm, or can't ever work. An operator must act first."""


class ConfigurationError(ServiceError):
    """A setting, or the file, address or keys that it names, can't be used: the program doesn't start with it."""


class BadInputError(ServiceError):
    """A file that an operator handed over can't be used: none of it was."""


class TopicsMissingError(ServiceError):
    """Kafka answered, and topics that are needed don't exist: create them first."""


class DeniedError(ServiceError):
    """Kafka or Postgres answered, and won't do what was asked: grant it, or ask for something else."""


class PreconditionError(ServiceError):
    """What an operator asked for doesn't fit what is there: nothing was changed."""


class PartitionUnreadableError(ServiceError):
    """A partition can't be read on from an offset; everything before it, and all other partitions, was read."""
