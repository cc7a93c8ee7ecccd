"""What an operator sees of a running job: the numbers a scrape finds, and logs that say nothing of anybody."""

import re
import time
from collections import Counter
from pathlib import Path
from threading import Thread
from typing import Any

import requests

from cli.job import JobProcess
from cli.metrics import Meters, rest_of_run, serving
from cli.servers import Kinesalite, RedisServer
from clickstream.settings import Geo, Offers, Redis, Settings, Source
from clickstream.settings import Lake as LakeSettings
from connectors.flink_rest import FlinkRest
from connectors.lake import Lake
from generator.records import Record
from tests.events import payload
from tests.jobs import GEO, PATIENCE, in_redis, publish, table_rows

SECRETS = [
    "Wilhelmina-Quist",
    "81.2.69.142",
    "2a00:1450:4007:80e::2004",
    "pixel-of-hers",
    "click-of-hers",
    "Fünfkirchen",
]
"""Distinctive enough that they are in a log only if somebody wrote them there."""


def records() -> list[Record]:
    name, address, other, pixel, click, _ = SECRETS
    events = [
        payload(
            user_id=f"{name}-{n % 5}",
            user_ip=(address, other)[n % 2],
            pixel_id=pixel,
            click_id=f"{click}-{n}",
            event_name="ViewContent",
            percent_viewed=n % 100,
        )
        for n in range(500)
    ]
    broken = [
        payload(user_id=name, user_ip=address + ".1"),
        payload(user_id=name, timestamp="Fünfkirchen"),
        payload(user_id=name, event_name=SECRETS[-1]),
        payload(user_id=name, price=-1),
        payload(user_id=name * 20),
        payload(user_id=name, click_id=...),
        f'{{"user_id": "{name}", "user_ip": "{address}"'.encode(),
        f'["{name}"]'.encode(),
        name.encode() + b"\xff",
        payload(user_id=name + "\udce4\ud800"),
    ]
    return [Record(str(n), one) for n, one in enumerate(events + broken)]


def scraped(url: str) -> dict[str, float]:
    answer = requests.get(url, timeout=10)
    if answer.status_code == 503:
        return {}  # Flink is still coming up
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_a_scrape_finds_what_is_in_the_lake_and_no_log_names_a_user_an_address_or_a_payload(
    kinesalite: Kinesalite, redis_server: RedisServer, redis: Any, stream: str, tmp_path: Path
) -> None:
    kinesalite.create_stream(f"{stream}-offers")
    settings = Settings(
        lake=LakeSettings(root=(tmp_path / "lake").as_uri()),
        source=Source(stream=stream, endpoint=kinesalite.endpoint),
        offers=Offers(stream=f"{stream}-offers"),
        redis=Redis(url=redis_server.url),
        geo=Geo(mmdb=str(GEO)),
    )
    in_redis(redis, {f"{SECRETS[0]}-{n}": SECRETS[-1] for n in range(5)})
    published = records()
    publish(kinesalite, stream, published)
    lake = Lake(settings.lake.root)

    with JobProcess(settings, tmp_path / "flink", checkpoint_seconds=1) as job:
        deadline = time.monotonic() + PATIENCE
        found: dict[str, float] = {}
        delay = 'clickstream_commit_delay_seconds{of="oldest"}'  # only a scrape after the first commit has it
        while _seen(found) < len(published) or delay not in found or _committed(lake) < len(published):
            job.check()
            assert time.monotonic() < deadline, f"{found}, see {job.log}"
            time.sleep(0.5)
            if url := rest_of_run(tmp_path):
                with serving(Meters(FlinkRest(url), lake)) as server:
                    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
                    thread.start()
                    found = scraped(f"http://127.0.0.1:{server.server_port}/metrics")
                    server.shutdown()
                    thread.join()
        job.stop()

    enriched, rejected = table_rows(settings, "enriched"), table_rows(settings, "rejected")
    assert found["clickstream_decoded_total"] == len(enriched) == 500
    reasons = Counter(row["reason"] for row in rejected)
    assert _labelled(found, "clickstream_rejected_total") == reasons
    assert found["clickstream_offers_total"] == sum(row["additional_data"]["percent_viewed"] > 60 for row in enriched)
    assert found["clickstream_last_access_writes_total"] >= 5
    assert found["clickstream_provider_addresses_total"] >= 2
    assert found["clickstream_redis_breaker"] == 0
    assert found[delay] >= found['clickstream_commit_delay_seconds{of="newest"}']
    assert {row["name"] for row in enriched} == {SECRETS[-1]}

    logs = [file for file in (tmp_path / "flink").rglob("*") if file.suffix in (".log", ".out", ".txt")]
    assert {"job.log"} < {file.name for file in logs}
    for file in logs:
        text = file.read_text(errors="replace")
        assert not [
            secret for secret in SECRETS if secret in text or secret.encode("unicode_escape").decode() in text
        ], file


def test_a_scrape_of_a_job_that_is_gone_says_so(tmp_path: Path) -> None:
    with serving(Meters(FlinkRest("http://127.0.0.1:9"), Lake(str(tmp_path)))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        answer = requests.get(f"http://127.0.0.1:{server.server_port}/metrics", timeout=30)
        other = requests.get(f"http://127.0.0.1:{server.server_port}/", timeout=30)
        server.shutdown()
        thread.join()

    assert (answer.status_code, other.status_code) == (503, 404)
    assert "Next:" in answer.text


def _committed(lake: Lake) -> int:
    return sum(map(lake.rows, lake.files("raw")))


def _seen(found: dict[str, float]) -> float:
    return found.get("clickstream_decoded_total", 0) + sum(_labelled(found, "clickstream_rejected_total").values())


def _labelled(found: dict[str, float], name: str) -> dict[str, float]:
    return {text: value for key, value in found.items() for text in re.findall(rf'^{name}{{\w+="(\w+)"}}$', key)}
