"""The input of every measurement: raw files of made-up records, the same bytes for the same numbers on any machine."""

import itertools
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cli import screen
from cli.setup import DATA
from clickstream.batch import Arrived
from clickstream.decode import decode
from clickstream.event import Event
from clickstream.schema import ORIGIN, RAW
from connectors.redis_door import RedisDoor
from generator.malformed import mixed
from generator.shoppers import Shoppers

SEED = 1
START = datetime(2026, 1, 1, tzinfo=UTC)
SMALLEST_FILE, LARGEST_FILE = 500, 100_000  # records
SHARDS = 4
HOUR = 3_600_000  # milliseconds
_PUBLIC = sorted({*range(1, 224)} - {10, 100, 127, 169, 172, 192, 198, 203})  # all addresses that begin so are
_ADDRESS = re.compile(rb'(?<="user_ip": ")[^"]+')


class Records(NamedTuple):
    """Which records: they arrive evenly within `hours`, as in life one partition after the other.

    With `at_once` above 1, they take turns in so many partitions, which are all open all the time.
    """

    events: int
    users: int = 100_000
    hours: int = 2
    at_once: int = 1
    malformed: float = 0.01  # share of them
    addresses: int = 0  # so many, all equally often, instead of the shoppers' own

    @property
    def folder(self) -> Path:
        """Where they are kept from one run to the next."""
        return DATA / "bench" / "-".join(f"{value}-{name}" for name, value in self._asdict().items())

    @property
    def raw(self) -> Path:
        """The records as the job's raw archive has them."""
        return self.folder / "raw"

    def files(self) -> list[Path]:
        """The raw files, in order."""
        return sorted(self.raw.glob("*.parquet"))

    def make(self) -> "Records":
        """Write them, unless an earlier run has."""
        if not (self.folder / "_made").exists():
            self.raw.mkdir(parents=True, exist_ok=True)
            with screen.progress() as progress:
                for number, payloads in enumerate(self._payloads()):
                    first = number * self._rows_a_file
                    file = self.raw / f"{number:05}.parquet"
                    pq.write_table(self._table(payloads, first), file, use_dictionary=False)
                    progress.show(f"making events: {first + len(payloads):,} of {self.events:,}")
            (self.folder / "_made").touch()
        return self

    def make_lines(self) -> Path:
        """Write the events among them as lines of JSON, for those who can read nothing else, unless they are there."""
        folder = self.folder / "lines"
        if not (self.folder / "_lines").exists():
            folder.mkdir(exist_ok=True)
            for file in self.files():
                payloads = pq.read_table(file, columns=["payload"])["payload"].to_pylist()
                events = [payload for payload in payloads if isinstance(decode(payload), Event)]
                (folder / file.with_suffix(".json").name).write_bytes(b"\n".join(events))
            (self.folder / "_lines").touch()
        return folder

    def batches(self, size: int) -> Iterator[Arrived]:
        """Read them as the job is given them."""
        for file in self.files():
            for batch in pq.ParquetFile(file).iter_batches(size):
                origin = {column.name: batch.column(column.name) for column in ORIGIN}
                yield Arrived(batch.column("payload"), origin)

    def names(self) -> Mapping[str, str]:
        """The names of those users who have signed up."""
        return _names(self.users)

    def load_names(self, redis_url: str) -> None:
        """Put the names where the look-ups find them."""
        door = RedisDoor.connect(redis_url, timeout=10)
        door.write_names(self.names().items())
        door.close()

    @property
    def _rows_a_file(self) -> int:
        return min(max(self.events // 10, SMALLEST_FILE), LARGEST_FILE)

    def _shoppers(self) -> Shoppers:
        return Shoppers(SEED, users=self.users, start=START, per_second=self.events / (self.hours * 3600))

    def _payloads(self) -> Iterator[list[bytes]]:
        made = itertools.islice(mixed(self._shoppers().records(), self.malformed, random.Random(SEED)), self.events)
        payloads = (record.payload for record in made)
        if self.addresses:
            payloads = from_addresses(self.addresses, payloads)
        while some := list(itertools.islice(payloads, self._rows_a_file)):
            yield some

    def _table(self, payloads: list[bytes], first: int) -> pa.Table:
        numbers = np.arange(first, first + len(payloads))
        arrival = np.datetime64(START.replace(tzinfo=None), "ms") + numbers * (self.hours * HOUR) // self.events
        arrival = arrival + numbers % self.at_once * HOUR
        columns = [
            pa.array(payloads, pa.binary()),
            pa.array(arrival).cast(pa.timestamp("us", "UTC")),
            pa.array([f"shardId-{number % SHARDS:012}" for number in numbers.tolist()]),
            pa.array([f"4959033827149{number:043}" for number in numbers.tolist()]),
        ]
        return pa.table(columns, schema=RAW)


CHECKED = Records(5_000, users=200, malformed=0.1)
"""What shows that results are right before anything is timed."""


def from_addresses(count: int, payloads: Iterable[bytes]) -> Iterator[bytes]:
    """Have events come from so many public addresses, all equally often, each as long as possible after itself."""
    numbers = random.Random(SEED).sample(range(count), count)
    for payload, number in zip(payloads, itertools.cycle(numbers), strict=False):
        yield _ADDRESS.sub(_address(number), payload, count=1)


def _address(number: int) -> bytes:
    """Return the public address of a number, another one for each number, neighbours far from each other."""
    rest, place = divmod(number, len(_PUBLIC))
    a, b, c = (rest * 0x9E3779B1 % (1 << 24)).to_bytes(3, "big")
    return b"%d.%d.%d.%d" % (_PUBLIC[place], a, b, c)


@lru_cache
def _names(users: int) -> Mapping[str, str]:
    return {one.customer_id: one.name for one in Shoppers(SEED, users=users).customers()}
