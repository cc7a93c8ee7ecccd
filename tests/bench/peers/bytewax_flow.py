"""A bytewax dataflow: batches of records, one round trip to Redis for the look-ups of each and one for last accesses.

Two processes take a half of the files each, with nothing to exchange. It remembers without a bound and for good, and
keeps no recovery store: what it has not written is lost when it dies.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from clickstream.decode import decode_all
from clickstream.place import Place, public_address
from tests.bench.peers.given import (
    Access,
    Enriched,
    Given,
    Record,
    Rejection,
    Tables,
    access,
    end,
    last_accesses,
    ready,
    records,
    say,
)

BATCH = 10_000

Read = Enriched | Rejection


class File(StatefulSourcePartition[Record, None]):
    """The records of one file."""

    def __init__(self, file: Path) -> None:
        self._batches: Iterator[list[Record]] = records(file, BATCH)

    def next_batch(self) -> Iterable[Record]:
        return next(self._batches)

    def snapshot(self) -> None:
        return None


class Files(FixedPartitionedSource[Record, None]):
    """All records of some files."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = {file.name: file for file in files}

    def list_parts(self) -> list[str]:
        return list(self._files)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> File:
        return File(self._files[for_part])


class Enrich:
    """Fills in place and name, and tells Redis of last accesses."""

    def __init__(self, given: Given) -> None:
        self._door, self._geo = given.door(), given.geo()
        self._door.check()
        self._places: dict[str, Place | None] = {}
        self._names: dict[str, str | None] = {}

    def __call__(self, batch: list[Read]) -> list[Read]:
        events = [row.event for row in batch if isinstance(row, Enriched)]
        self._look_up({event.user_ip for event in events}, {event.user_id for event in events})
        rows: list[Read] = []
        newest: dict[str, tuple[str, int, Access]] = {}
        for row in batch:
            if isinstance(row, Rejection):
                rows.append(row)
                continue
            event = row.event
            enriched = Enriched(event, self._places[event.user_ip], self._names[event.user_id], row.record)
            rows.append(enriched)
            last = access(enriched)
            entry = (last[1], int(last[2]), last)
            newest[event.user_id] = max(entry, newest.get(event.user_id, entry))
        if newest:
            self._door.keep_newest(last_accesses(last for *_, last in newest.values()))
        return rows

    def _look_up(self, addresses: set[str], users: set[str]) -> None:
        spelled = {address: public_address(address) for address in addresses if address not in self._places}
        unplaced = {public for public in spelled.values() if public}
        unnamed = users - self._names.keys()
        if not unplaced and not unnamed:
            return
        known = self._door.read(unplaced, unnamed, take_on=False)
        unplaced -= known.places.keys()
        found = self._geo.find(list(unplaced))
        if found:
            self._door.write(found)
        places = {**known.places, **found}
        self._places.update((address, places[public] if public else None) for address, public in spelled.items())
        self._names.update((user, known.names.get(user)) for user in unnamed)


class Lake(DynamicSink[Read], StatelessSinkPartition[Read]):
    """Writes the tables; all workers are threads of one process, of which there is one."""

    def __init__(self, given: Given) -> None:
        self._tables = Tables(given)
        self._done = 0

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "Lake":
        return self

    def write_batch(self, items: list[Read]) -> None:
        for rows in (
            [row.record for row in items],
            [row for row in items if isinstance(row, Enriched)],
            [row for row in items if isinstance(row, Rejection)],
        ):
            self._tables.add(rows)
        self._done += len(items)
        say(self._done)

    def close(self) -> None:
        self._tables.close()


def main() -> None:
    """Run the share of one process."""
    given = Given.read()
    lake = Lake(given)
    flow = Dataflow("clickstream")
    arrived = op.input("records", flow, Files(given.files))
    read = op.flat_map_batch("decode", arrived, decoded)
    enriched = op.flat_map_batch("place and name, last access", read, Enrich(given))
    op.output("lake", enriched, lake)
    ready()
    cli_main(flow)
    end()


def decoded(batch: list[Record]) -> list[Read]:
    """Read the records of a batch."""
    events, rejected = decode_all([record.payload for record in batch])
    in_order = iter(events)
    return [
        Rejection(rejected[row], record) if row in rejected else Enriched(next(in_order), None, None, record)
        for row, record in enumerate(batch)
    ]


if __name__ == "__main__":
    main()
