"""What a stream said it took, written down as its answers come, for whoever audits afterwards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec

from clickstream.errors import Refused
from generator.records import Record


class _Entry(msgspec.Struct):
    shard_id: str
    sequence_number: str


class Manifest:
    """One JSON object a line: `shard_id` and `sequence_number` of each record that was accepted, none of its bytes.

    Writing begins the file anew. An answer that is lost on its way is not in it, so the stream may hold more.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise Refused(f"{path} cannot be written: {error.strerror}. Next: choose another file") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def accepted(self, _: Record, shard_id: str, sequence_number: str) -> None:
        """Write down one answer; fits `KinesisPublisher.on_accepted`."""
        self.write(shard_id, sequence_number)

    def write(self, shard_id: str, sequence_number: str) -> None:
        """Write down where a record is."""
        self._file.write(msgspec.json.encode(_Entry(shard_id, sequence_number)) + b"\n")


def read_manifest(path: Path) -> Iterator[tuple[str, str]]:
    """Give the shard and sequence number of each line; the last one is left out if its writer died in it."""
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                entry = msgspec.json.decode(line, type=_Entry)
                yield entry.shard_id, entry.sequence_number
