"""Records to the platform's HTTP door, one POST each."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Final
from zlib import crc32

import requests
from requests.adapters import HTTPAdapter

from clickstream.errors import Refused, Unavailable
from connectors.pauses import asked_for, backoff
from generator.pace import batches
from generator.records import Published, Record

_TAKEN: Final = range(200, 300)
_BAD_RECORD: Final = {400, 413, 422}  # the answers that are about this record and no other
_BUSY: Final = {408, 429, *range(500, 600)}
_NO_ANSWER: Final = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


def keep_alive(connections: int = 64) -> requests.Session:
    """Open a session that keeps as many connections open, one for each worker."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=connections))
    return session


@dataclass(frozen=True, slots=True)
class HttpPublisher:
    """POST each payload as it is to `<url>/event`, on a few connections that stay open.

    Records of one key go through one worker in turn, so they keep their order. A 408, 429, 5xx or broken connection is
    tried again, after `Retry-After` if the answer has one, and in the end `Unavailable`; it may deliver a record
    twice. A 400, 413 or 422 counts the record as refused. Any other answer means the address or the permissions are
    wrong for all of them: `Refused`.
    """

    url: str
    session: requests.Session = field(default_factory=keep_alive)
    workers: int = 4
    attempts: int = 8
    timeout: float = 10.0  # seconds
    linger: float = 0.25  # seconds
    sleep: Callable[[float], None] = time.sleep
    rng: Random = field(default_factory=Random)

    def publish(self, records: Iterable[Record]) -> Published:
        """Post them all; return when the last one is answered."""
        answers: Counter[int] = Counter()
        with ThreadPoolExecutor(self.workers) as pool:
            for batch in batches(records, most=50 * self.workers, most_bytes=5 << 20, linger=self.linger):
                for statuses in pool.map(self._post_in_turn, self._lanes(batch)):
                    answers.update(statuses)
        refused = {f"was answered {status}": number for status, number in answers.items() if status in _BAD_RECORD}
        return Published(answers.total() - sum(refused.values()), refused)

    def _lanes(self, batch: list[Record]) -> list[list[Record]]:
        lanes: defaultdict[int, list[Record]] = defaultdict(list)
        for record in batch:
            lanes[crc32(record.partition_key.encode()) % self.workers].append(record)
        return list(lanes.values())

    def _post_in_turn(self, lane: list[Record]) -> list[int]:
        return [self._post(record) for record in lane]

    def _post(self, record: Record) -> int:
        """Return the status that settled the record."""
        why = ""
        for attempt in range(self.attempts):
            status, why, asked = self._post_once(record.payload)
            if status in _TAKEN or status in _BAD_RECORD:
                return status
            if attempt + 1 < self.attempts:
                self.sleep(backoff(attempt + 1, self.rng) if asked is None else asked)
        raise Unavailable(
            f"POST {self._target} failed {self.attempts} times, the last time with {why}. "
            f"Next: see whether it is up, curl -i {self._target}, or publish at a lower rate"
        )

    def _post_once(self, payload: bytes) -> tuple[int, str, float | None]:
        """Return the answer's status, 0 if none came, what went wrong, and the seconds it asks to wait."""
        try:
            answer = self.session.post(
                self._target,
                data=payload,
                headers={"Content-Type": "application/json"},
                timeout=self.timeout,
                allow_redirects=False,  # following one would turn the POST into a GET
            )
        except _NO_ANSWER as error:
            return 0, str(error), None
        except requests.RequestException as error:
            raise Refused(f"{self._target} takes no POST: {error}. Next: give an address like https://host") from error
        status, why = answer.status_code, f"{answer.status_code}: {answer.text[:200]}"
        if status in _TAKEN or status in _BAD_RECORD or status in _BUSY:
            return status, why, asked_for(answer.headers.get("Retry-After"))
        raise Refused(f"POST {self._target} was answered {why}. Next: check the address, curl -i {self._target}")

    @property
    def _target(self) -> str:
        return f"{self.url.rstrip('/')}/event"
