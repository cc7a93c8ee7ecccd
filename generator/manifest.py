"""What a stream said it took, written down as its answers come, for whoever audits afterwards."""

from pathlib import Path
from typing import Self

import msgspec

from clickstream.errors import Refused
from generator.records import Record


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
        self._file.write(msgspec.json.encode({"shard_id": shard_id, "sequence_number": sequence_number}) + b"\n")
