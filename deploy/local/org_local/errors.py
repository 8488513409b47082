"""What can go wrong with the local stack; each message says what, why and what to do."""


class LocalStackError(Exception):
    """The local stack can't do what was asked; nothing it started is left running."""


class DataFolderInUseError(LocalStackError):
    """Another stack holds the data folder."""


class KafkaJarsUnavailableError(LocalStackError):
    """Kafka isn't in the cache and can't be fetched."""


class ServerFailedError(LocalStackError):
    """A server ended or didn't answer in time; the message carries the end of its log."""
