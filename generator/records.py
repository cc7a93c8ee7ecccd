"""A record on its way into the stream, and what came of publishing it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Record(NamedTuple):
    """Bytes as they will arrive, whether an event or not, and the key that chooses their shard."""

    partition_key: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Published:
    """How many records the other side took, and how many it will never take, counted by the reason."""

    accepted: int
    refused: Mapping[str, int] = field(default_factory=dict)

    @property
    def refusals(self) -> int:
        """How many were refused for any reason."""
        return sum(self.refused.values())


class Publisher(Protocol):
    """A way into the platform.

    Every record is either accepted or counted under `refused` because of what it is. Trouble that is not a record's
    fault is retried with patience, then raised as `Unavailable` or `Refused`. A retry may deliver a record twice.
    """

    def publish(self, records: Iterable[Record]) -> Published:
        """Send them all, reading them only as fast as they are taken."""
