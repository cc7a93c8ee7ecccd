"""Records as the lines of a file, broken ones included."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from clickstream.errors import Refused
from generator.records import Published, Record

MAX_KEY_CHARACTERS: Final = 256  # Kinesis' limit for a partition key

_USER_ID: Final = re.compile(rb'"user_id"\s*:\s*("(?:[^"\\]|\\.)+"|-?[0-9]+)')


def lines(path: Path) -> Iterator[bytes]:
    """Read each line as it is, without its newline; an empty line is an empty record, a last line may be unfinished.

    A carriage return before the newline is part of the record. One line at a time is in memory.
    """
    with path.open("rb") as file:
        for line in file:
            yield line.removesuffix(b"\n")


def records_in(path: Path) -> Iterator[Record]:
    """Read each line of a file as a record whose key is the best guess at its user."""
    for payload in lines(path):
        yield Record(key_for(payload), payload)


def key_for(payload: bytes) -> str:
    """Find the `user_id` of an event that may be broken; without a usable one, a hash of the bytes spreads the load."""
    found = _USER_ID.search(payload)
    if found:
        try:
            key = str(json.loads(found[1]))
            if len(key.encode()) and len(key) <= MAX_KEY_CHARACTERS:
                return key
        except ValueError:  # not UTF-8, a bad escape, half a surrogate pair, an endless integer
            pass
    return hashlib.blake2b(payload, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class FilePublisher:
    """Write each payload as one line. Publishing again replaces the file, so doing it twice is harmless.

    A payload with a newline in it would come back as two records, so it is refused; keys are not written.
    """

    path: Path

    def publish(self, records: Iterable[Record]) -> Published:
        """Write them all; what was written stays if the records end in an error."""
        accepted = 0
        refused: Counter[str] = Counter()
        with self._open() as file:
            for record in records:
                if b"\n" in record.payload:
                    refused["holds a newline, which a file of lines cannot keep"] += 1
                else:
                    file.write(record.payload + b"\n")
                    accepted += 1
        return Published(accepted, dict(refused))

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("wb")
        except OSError as error:
            raise Refused(f"{self.path} cannot be written: {error.strerror}. Next: choose another file") from None
