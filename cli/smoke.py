"""Posts events through the API and waits until they are in the lake and, those that are offers, in their stream."""

import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import msgspec
import pyarrow.parquet as pq
import requests

from clickstream.errors import Refused, Unavailable
from connectors.kinesis_reader import read
from connectors.positions import AtTimestamp, Checkpoint
from deploy.aws import Clients, Tell, answering

PATIENCE: Final = 600.0
"""Seconds: the job commits once a minute, and after a start it warms up first."""

_ADDRESS: Final = "203.0.113.7"  # for documentation, RFC 5737: nobody's
_STEP: Final = 2.0


@dataclass(slots=True)
class Smoke:
    """One try. Its events are a user's that nobody else is, and are found again by their click_id."""

    clients: Clients
    tell: Tell
    api_url: str
    lake_bucket: str
    offers_stream: str
    api_key: str | None = None
    patience: float = PATIENCE
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _seen: set[str] = field(default_factory=set)  # files of the lake that were read
    _read: Checkpoint | None = None  # how far the offers were

    def run(self, number: int = 10) -> Mapping[str, float]:
        """Return after how many seconds everything was in the lake and in the offers; `Unavailable` if not in time."""
        started = time.monotonic()
        since = self.clock() - timedelta(minutes=1)
        mark = f"smoke-{uuid4().hex[:12]}"
        events = list(_events(mark, number, self.clock()))
        self._post(events)
        missing = {
            "lake": {one["click_id"] for one in events},
            "offers": {one["click_id"] for one in events if _is_offer(one)},
        }
        look = {"lake": self._in_lake, "offers": self._in_offers}
        took: dict[str, float] = {}
        while True:
            for name in missing.keys() - took.keys():
                missing[name] -= look[name](since, mark)
                if not missing[name]:
                    took[name] = time.monotonic() - started
                    self.tell.step(f"all in {name} after {took[name]:.0f} s")
            if len(took) == len(missing):
                return took
            self._wait(started, {name: len(left) for name, left in missing.items() if left})

    def _post(self, events: list[dict[str, Any]]) -> None:
        url = f"{self.api_url.rstrip('/')}/event"
        self.tell.step(f"posting {len(events)} events to {url}")
        headers = {"Content-Type": "application/json"} | ({"x-api-key": self.api_key} if self.api_key else {})
        with requests.Session() as session:
            session.trust_env = not self.clients.at_stand_in
            for event in events:
                try:
                    answer = session.post(
                        url, data=msgspec.json.encode(event), headers=headers, timeout=30, allow_redirects=False
                    )
                except requests.RequestException as error:
                    raise Unavailable(
                        f"POST {url} failed: {error}. Next: see whether it is up, curl -i {url}"
                    ) from None
                if answer.status_code == 403:
                    raise Refused(
                        f"POST {url} was answered 403: {answer.text[:200]}. Next: give --api-key env:NAME if the API "
                        "wants one, or see whether the WAF blocks your address"
                    )
                if not 200 <= answer.status_code < 300:
                    raise Refused(
                        f"POST {url} was answered {answer.status_code}: {answer.text[:200]}. "
                        "Next: read the API's access log in CloudWatch"
                    )

    def _in_lake(self, since: datetime, mark: str) -> set[str]:
        s3 = self.clients("s3")
        found: set[str] = set()
        hours = {since.astimezone(UTC), self.clock().astimezone(UTC)}
        with answering(f"looking into s3://{self.lake_bucket}"):
            for prefix in sorted({f"enriched/{hour:year=%Y/month=%m/day=%d/hour=%H}/" for hour in hours}):
                for page in s3.get_paginator("list_objects_v2").paginate(Bucket=self.lake_bucket, Prefix=prefix):
                    for one in page.get("Contents", []):
                        if one["LastModified"] >= since and one["Key"] not in self._seen:
                            self._seen.add(one["Key"])
                            content = s3.get_object(Bucket=self.lake_bucket, Key=one["Key"])["Body"].read()
                            found |= set(pq.read_table(io.BytesIO(content), columns=["click_id"])[0].to_pylist())
        return {one for one in found if one.startswith(mark)}

    def _in_offers(self, since: datetime, mark: str) -> set[str]:
        client = self.clients("kinesis")
        found = set()
        self._read = self._read or Checkpoint(self.offers_stream)
        start = AtTimestamp(since)
        with closing(read(client, self.offers_stream, start, checkpoint=self._read)) as records:
            for record in records:
                if mark.encode() in record.data:
                    found.add(str(msgspec.json.decode(record.data)["click_id"]))
        return found

    def _wait(self, started: float, missing: Mapping[str, int]) -> None:
        said = ", ".join(f"{number} not yet in {name}" for name, number in missing.items())
        waited = time.monotonic() - started
        if waited >= self.patience:
            raise Unavailable(
                f"after {waited:.0f} s {said}. Next: clickstream deploy status shows whether the job runs; its log in "
                "CloudWatch says what it does"
            )
        self.tell.now(f"{said}; {waited:.0f} of {self.patience:.0f} s")
        time.sleep(_STEP)


def _events(mark: str, number: int, now: datetime) -> Iterator[dict[str, Any]]:
    moment = f"{now.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"
    for n in range(number):
        yield {
            "timestamp": moment,
            "user_id": mark,
            "pixel_id": "smoke",
            "click_id": f"{mark}-{n}",
            "insertion_timestamp": moment,
            "event_name": "ViewContent",
            "user_ip": _ADDRESS,
            "additional_data": {"time_on_data": 5, "percent_viewed": 90 if n % 2 else 10, "product_id": n, "price": 1},
        }


def _is_offer(event: Mapping[str, Any]) -> bool:
    return bool(event["additional_data"]["percent_viewed"] > 60)
