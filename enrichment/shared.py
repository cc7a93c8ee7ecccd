"""What the workers know together, and who keeps it. Needs no numpy and no pyarrow, which a Lambda does not have."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from clickstream.place import Place


class Shared(NamedTuple):
    """What all workers know together: places (None: nobody knows) and names; what is not in there is not known yet.

    `mine` are the addresses that this worker, and no other, has now taken on to ask a metered provider about.
    """

    places: Mapping[str, Place | None]
    names: Mapping[str, str]
    mine: Collection[str] = ()


class SharedAnswers(Protocol):
    """The workers' common memory. Every method is one round trip, and raises `Unavailable` when it is down or slow."""

    def read(self, addresses: Collection[str], user_ids: Collection[str], *, take_on: bool) -> Shared:
        """Look everything up; with `take_on`, take on the addresses nobody knows and nobody has taken on."""

    def write(self, places: Mapping[str, Place | None]) -> None:
        """Keep what a provider said, misses for a shorter time, and let go of these addresses."""

    def let_go(self, addresses: Collection[str]) -> None:
        """Let others ask about these addresses, which this worker has taken on and could not find out about."""


class LastAccesses(NamedTuple):
    """When users were last seen, and where: columns of equal length, with each user once."""

    user_ids: Sequence[str]
    moments: Sequence[str]  # `YYYY-MM-DD HH:MM:SS.ffffff` in UTC, text that sorts as time does
    sequence_numbers: Sequence[str]  # of the events
    locations: Sequence[str | None]  # None leaves the place that is known already


class Accesses(Protocol):
    """Whoever keeps each user's newest access, by moment and then by sequence number, in whatever order they come."""

    def keep_newest(self, accesses: LastAccesses) -> None:
        """Keep those that are newer than what is there, in one round trip; doing it again changes nothing."""
