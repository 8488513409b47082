"""The parts of a record by the letter of Kafka's protocol guide ("Record"): numbers, bytes and headers.

Slower than aiokafka's compiled reader by far, and for what that can't cope with: see `batches`.
"""

from aiokafka.errors import CorruptRecordException


def signed(number: int) -> int:
    """As 64 bits hold it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


class RecordReader:
    """Reads numbers and bytes from where it stands. Raises `IndexError` where there are no more."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def read_number(self, bits: int = 32) -> int:
        """A signed number: zigzag, seven bits a byte; what exceeds its bits is dropped, as in Java."""
        raw = shift = 0
        while True:
            byte = self._data[self.at]
            self.at += 1
            raw |= (byte & 0x7F) << shift
            if not byte & 0x80:
                raw &= (1 << bits) - 1
                return (raw >> 1) ^ -(raw & 1)
            shift += 7
            if shift >= bits:
                raise CorruptRecordException("a number is not terminated")

    def read_content(self) -> bytes | None:
        """Bytes behind their length, None where that is negative."""
        length = self.read_number()
        if length < 0:
            return None
        start, self.at = self.at, self.at + length
        if self.at > len(self._data):
            raise IndexError
        return self._data[start : self.at]

    def count_headers_ahead(self) -> int:
        """How many headers the record says it has whose attributes are next; stays where it is."""
        ahead = RecordReader(self._data, self.at + 1)
        ahead.read_number(64)
        ahead.read_number()
        ahead.skip()
        ahead.skip()
        return ahead.read_number()

    def skip(self) -> None:
        """Step over bytes behind their length."""
        length = self.read_number()
        self.at += max(length, 0)

    def read_header(self) -> tuple[str, bytes | None]:
        """A header; its name as it is, or written as `\\xff` where it isn't UTF-8."""
        return (self.read_content() or b"").decode(errors="backslashreplace"), self.read_content()
