"""Records to the platform's HTTP door, one POST each or many in one."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, islice
from random import Random
from typing import Final
from zlib import crc32

import requests
from requests.adapters import HTTPAdapter

from clickstream.errors import Refused, Unavailable
from connectors.pauses import asked_for, backoff
from generator.pace import batches
from generator.records import Published, Record

MAX_REQUEST_BYTES: Final = 4 << 20  # the firewall lets 5 MB through

_TAKEN: Final = range(200, 300)
_IN_PART: Final = 207
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

    With a `batch` of more than 1, so many go to `<url>/events` at once, as a JSON array, which the other side takes
    apart: what arrives says the same, but may be written differently. A batch that is refused is halved until the
    record at fault is alone; one that is taken in part (207) is sent again with the rest, which may overtake others of
    the same key. What is not JSON by itself goes alone.

    `on_accepted(count)` hears of records taken, every so often.
    """

    url: str
    session: requests.Session = field(default_factory=keep_alive)
    workers: int = 4
    attempts: int = 8
    timeout: float = 10.0  # seconds
    linger: float = 0.25  # seconds
    batch: int = 1
    on_accepted: Callable[[int], None] | None = None
    sleep: Callable[[float], None] = time.sleep
    rng: Random = field(default_factory=Random)

    def publish(self, records: Iterable[Record]) -> Published:
        """Post them all; return when the last one is answered."""
        answers: Counter[int] = Counter()
        with ThreadPoolExecutor(self.workers) as pool:
            most = max(50, self.batch) * self.workers
            for batch in batches(records, most=most, most_bytes=MAX_REQUEST_BYTES, linger=self.linger):
                for statuses in pool.map(self._post_in_turn, self._lanes(batch)):
                    answers.update(statuses)
                    if self.on_accepted:
                        self.on_accepted(sum(status in _TAKEN for status in statuses))
        refused = {f"was answered {status}": number for status, number in answers.items() if status in _BAD_RECORD}
        return Published(answers.total() - sum(refused.values()), refused)

    def _lanes(self, batch: list[Record]) -> list[list[Record]]:
        lanes: defaultdict[int, list[Record]] = defaultdict(list)
        for record in batch:
            lanes[crc32(record.partition_key.encode()) % self.workers].append(record)
        return list(lanes.values())

    def _post_in_turn(self, lane: list[Record]) -> list[int]:
        """Return the statuses that settled the records."""
        statuses: list[int] = []
        for together, records in groupby(lane, lambda record: self.batch > 1 and _is_json(record.payload)):
            if together:
                while group := list(islice(records, self.batch)):
                    statuses += self._post_together(group)
            else:
                statuses += [self._post("event", record.payload)[0] for record in records]
        return statuses

    def _post_together(self, group: list[Record]) -> list[int]:
        statuses: list[int] = []
        for attempt in range(self.attempts):
            if attempt:
                self.sleep(backoff(attempt, self.rng))
            status, text = self._post("events", b"[" + b",".join(record.payload for record in group) + b"]")
            if status in _BAD_RECORD and len(group) > 1:
                middle = len(group) // 2
                return statuses + self._post_together(group[:middle]) + self._post_together(group[middle:])
            left = _not_taken(text) if status == _IN_PART else []
            statuses += [status] * (len(group) - len(left))
            if not left:
                return statuses
            group = [group[index] for index in left]
        raise Unavailable(
            f"POST {self._target('events')} took only a part of what it was sent, {self.attempts} times. "
            f"Next: see whether the stream has shards enough, or publish at a lower rate"
        )

    def _post(self, path: str, body: bytes) -> tuple[int, str]:
        """Return the status that settled the request, and the answer's text."""
        why = ""
        for attempt in range(self.attempts):
            status, why, asked = self._post_once(path, body)
            if status in _TAKEN or status in _BAD_RECORD:
                return status, why
            if attempt + 1 < self.attempts:
                self.sleep(backoff(attempt + 1, self.rng) if asked is None else asked)
        target = self._target(path)
        raise Unavailable(
            f"POST {target} failed {self.attempts} times, the last time with {why}. "
            f"Next: see whether it is up, curl -i {target}, or publish at a lower rate"
        )

    def _post_once(self, path: str, body: bytes) -> tuple[int, str, float | None]:
        """Return the answer's status, 0 if none came, its text or what went wrong, and the seconds it asks to wait."""
        target = self._target(path)
        try:
            answer = self.session.post(
                target,
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=self.timeout,
                allow_redirects=False,  # following one would turn the POST into a GET
            )
        except _NO_ANSWER as error:
            return 0, str(error), None
        except requests.RequestException as error:
            raise Refused(f"{target} takes no POST: {error}. Next: give an address like https://host") from error
        status = answer.status_code
        if status in _TAKEN or status in _BAD_RECORD:
            return status, answer.text, None
        why = f"{status}: {answer.text[:200]}"
        if status in _BUSY:
            return status, why, asked_for(answer.headers.get("Retry-After"))
        raise Refused(f"POST {target} was answered {why}. Next: check the address, curl -i {target}")

    def _target(self, path: str) -> str:
        return f"{self.url.rstrip('/')}/{path}"


def _is_json(payload: bytes) -> bool:
    """Say whether this is one JSON text, which cannot change the meaning of others it is listed with."""
    try:
        json.loads(payload.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _not_taken(text: str) -> list[int]:
    """Read out of a 207's body which records are to be sent again."""
    return [error["index"] for error in json.loads(text)["errors"]]
