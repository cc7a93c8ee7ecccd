"""How far a reader of a Kinesis stream has come in each shard, and the file that remembers it."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from clickstream.errors import Refused


class TrimHorizon(Struct, frozen=True, tag="trim_horizon"):
    """From the oldest record the stream still has."""


class Latest(Struct, frozen=True, tag="latest"):
    """From what arrives next."""


class AtTimestamp(Struct, frozen=True, tag="at_timestamp"):
    """From the first record that arrived at this moment, by Kinesis' clock, or later."""

    moment: datetime


class After(Struct, frozen=True, tag="after"):
    """From the record that follows this one, which has been handled."""

    sequence_number: str


class Finished(Struct, frozen=True, tag="finished"):
    """The shard is closed, and its last record has been handled."""


Start = TrimHorizon | Latest | AtTimestamp
Position = TrimHorizon | AtTimestamp | After | Finished


class _File(Struct, forbid_unknown_fields=True):
    stream: str
    shards: dict[str, Position]


@dataclass(slots=True)
class Checkpoint:
    """The positions of one reader in one stream; without a `path` they end with it.

    The file is never ahead of what was handled. It is replaced as a whole, at most once in `every` seconds and when
    reading ends, so a crash repeats the records of that time and loses none. It is for one reader at a time.
    """

    stream: str
    path: Path | None = None
    positions: dict[str, Position] = field(default_factory=dict)
    every: float = 1.0
    clock: Callable[[], float] = time.monotonic
    _saved: dict[str, Position] = field(default_factory=dict)
    _saved_at: float = float("-inf")

    @classmethod
    def load(cls, path: Path, stream: str) -> "Checkpoint":
        """Read the file, or begin a new one; `Refused` if it is another stream's or no checkpoint at all."""
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_File)
        except FileNotFoundError:
            return cls(stream, path)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused(
                f"The checkpoint {path} cannot be read: {error}. Next: name another file, or delete it to start afresh"
            ) from error
        if kept.stream != stream:
            raise Refused(f"The checkpoint {path} is of stream {kept.stream}, not {stream}. Next: name another file")
        return cls(stream, path, kept.shards)

    def handled(self, shard_id: str, sequence_number: str) -> None:
        """Take note that this record, and so all of its shard before it, needs no more reading."""
        self.positions[shard_id] = After(sequence_number)
        self.save_if_due()

    def save_if_due(self) -> None:
        """Save if the last time was long enough ago."""
        if self.clock() - self._saved_at >= self.every:
            self.save()

    def save(self) -> None:
        """Replace the file if anything is new; `Refused` if it cannot be written."""
        if self.path is None or self.positions == self._saved:
            return
        beside = self.path.with_name(f"{self.path.name}.new")
        try:
            with beside.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(_File(self.stream, self.positions))) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except OSError as error:
            raise Refused(
                f"The checkpoint {self.path} cannot be written: {error}. "
                f"Next: make room or name a file in a folder that exists and is yours"
            ) from error
        self._saved = dict(self.positions)
        self._saved_at = self.clock()
