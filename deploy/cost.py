"""What a month costs, by part, at a given rate of events: prices times the quantities written down here."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from deploy.parts import NAMES

PRICES: Final = Path(__file__).parent / "prices.yaml"

HOURS: Final = 730.0  # of a month
COUNTED: Final = {
    ("network", "AWS::EC2::VPCEndpoint"): 8,  # of which S3's costs nothing
    ("athena", "AWS::EC2::VPCEndpoint"): 1,
    ("archive", "AWS::KinesisFirehose::DeliveryStream"): 2,
    ("scaling", "AWS::CloudWatch::Alarm"): 10,
    ("watch", "AWS::CloudWatch::Alarm"): 26,
    ("watch", "AWS::CloudWatch::Dashboard"): 1,
    ("catalog", "AWS::Glue::Crawler"): 2,
    ("streams", "AWS::KMS::Key"): 1,
    ("archive", "AWS::KMS::Key"): 1,
}
"""How many there are in the templates of what is paid by the piece."""

_GB: Final = 1 << 30
_FIREHOSE_UNIT: Final = 5 << 10  # bytes
_KPU_GB: Final = 50


@dataclass(frozen=True, slots=True)
class Workload:
    """What the estimate assumes; the sizes are those of made-up events as `clickstream generate` writes them."""

    events_per_second: float
    events_per_request: float = 1.0  # 1 is POST /event; up to 500 with POST /events
    event_bytes: int = 350  # JSON
    raw_bytes: int = 70  # of the same in Firehose's gzip
    row_bytes: int = 100  # of enriched Parquet, and as much again flattened
    offers_share: float = 0.13
    response_bytes: int = 300
    access_log_bytes: int = 300
    events_per_shard: int = 700  # a second, of the 1,000 that one takes
    events_per_kpu: int = 10_000  # a second; docs/performance.md measures four times that on a core
    months_kept: int = 12  # of raw and of the lake

    @property
    def millions(self) -> float:
        """Events of a month, in millions."""
        return self.events_per_second * 3600 * HOURS / 1e6

    @property
    def shards(self) -> int:
        """The shards of clicks: 1,000 records or 1 MiB a second each, of which a part is kept free."""
        full = max(1 / 1000, self.event_bytes / (1 << 20))
        return max(1, math.ceil(self.events_per_second * full * 1000 / self.events_per_shard))

    @property
    def offer_shards(self) -> int:
        """The shards of offers."""
        return max(1, math.ceil(self.events_per_second * self.offers_share / self.events_per_shard))

    @property
    def kpus(self) -> int:
        """The KPUs of the job, with the one that the service adds for itself."""
        return 1 + max(1, math.ceil(self.events_per_second / self.events_per_kpu))

    @property
    def redis(self) -> tuple[int, str]:
        """How many nodes of Redis, and of which kind, as docs/aws.md sizes them."""
        for most, nodes, kind in (
            (100, 1, "cache.t4g.micro"),
            (1_000, 1, "cache.t4g.small"),
            (10_000, 2, "cache.m7g.large"),
        ):
            if self.events_per_second <= most:
                return nodes, kind
        return 2, "cache.r7g.large"

    def gigabytes(self, size: float) -> float:
        """Return what bytes of each event come to in a month."""
        return self.millions * 1e6 * size / _GB


class Line(NamedTuple):
    """One thing that costs."""

    part: str
    what: str
    dollars: float


class Prices(NamedTuple):
    """The price table, with where and when it held."""

    region: str
    as_of: str
    of: dict[str, Any]


def read_prices(file: Path = PRICES) -> Prices:
    """Read the price table."""
    found = yaml.safe_load(file.read_text())
    return Prices(found["region"], found["as_of"], found["prices"])


def tiered(quantity: float, tiers: Sequence[Sequence[Any]]) -> float:
    """Price a quantity by tiers: each begins where the one before it ends, and the last has no end."""
    total, below = 0.0, 0.0
    for end, price in tiers:
        upto = quantity if end is None else min(quantity, float(end))
        total += max(0.0, upto - below) * float(price)
        below = upto
    return total


def estimate(load: Workload, prices: Prices, parts: Collection[str] = NAMES) -> list[Line]:
    """Return what each part costs in a month, largest first within a part; parts are in their order."""
    lines = [line for line in _lines(load, prices.of) if line.part in parts]
    return sorted(lines, key=lambda line: (NAMES.index(line.part), -line.dollars))


def by_part(lines: Collection[Line]) -> dict[str, float]:
    """Sum the lines up."""
    return {part: total for part in NAMES if (total := sum(line.dollars for line in lines if line.part == part))}


def _lines(load: Workload, price: dict[str, Any]) -> list[Line]:
    nodes, kind = load.redis
    requests = load.millions / load.events_per_request
    offers = load.millions * load.offers_share
    shards = load.shards + load.offer_shards
    firehose_gb = load.gigabytes((math.ceil(load.event_bytes / _FIREHOSE_UNIT) + load.offers_share) * _FIREHOSE_UNIT)
    scaling_alarms, watch_alarms = (COUNTED[part, "AWS::CloudWatch::Alarm"] for part in ("scaling", "watch"))
    crawlers = COUNTED["catalog", "AWS::Glue::Crawler"]
    stored_gb = load.months_kept * load.gigabytes(load.raw_bytes + 2 * load.row_bytes)
    files = (
        HOURS * 60 * 3 + load.gigabytes(load.event_bytes) * 1024 / 3
    )  # a checkpoint and two tables a minute; Firehose's
    flatten_dpus = 2 + load.gigabytes(load.row_bytes) / HOURS / 2  # of an hour: a worker more for each 2 GB
    return [
        Line("artifacts", "1 GB of zips", tiered(1, price["s3_gb_month"])),
        Line("network", "7 endpoints in one zone", 7 * HOURS * price["endpoint_hour"]),
        Line(
            "network",
            "the job's traffic through them",
            load.gigabytes(load.event_bytes * (1 + load.offers_share)) * price["endpoint_gb"],
        ),
        Line("data", f"Redis, {nodes} {kind}", nodes * HOURS * price["redis_hour"][kind]),
        Line(
            "data",
            "Aurora at 0.5 ACU with 10 GB",
            0.5 * HOURS * price["aurora_acu_hour"] + 10 * price["aurora_gb_month"],
        ),
        Line("data", "4 secrets", 4 * price["secret_month"]),
        Line("streams", f"{load.shards} + {load.offer_shards} shards", shards * HOURS * price["kinesis_shard_hour"]),
        Line("streams", "PUT units", (load.millions + offers) * price["kinesis_million_put_units"]),
        Line("streams", "a key", price["key_month"]),
        Line("archive", "Firehose, 5 KB an event or offer", tiered(firehose_gb, price["firehose_gb"])),
        Line("archive", f"{load.months_kept} months in S3", tiered(stored_gb, price["s3_gb_month"])),
        Line("archive", "writing files", files / 1000 * price["s3_thousand_puts"]),
        Line("archive", "a key", price["key_month"]),
        Line("job", f"{load.kpus} KPUs", load.kpus * HOURS * price["flink_kpu_hour"]),
        Line("job", "their storage", (load.kpus - 1) * _KPU_GB * price["flink_gb_month"]),
        Line("job", "1 GB of logs", price["logs_gb"]),
        Line("lambdas", "offers, 100 a call of 0.2 s at 512 MB", _lambda(offers / 100, 0.2 * 0.5, price)),
        Line("lambdas", "names, hourly, 60 s at 512 MB", _lambda(HOURS / 1e6, 60 * 0.5, price)),
        Line("scaling", f"{scaling_alarms} alarms", scaling_alarms * price["alarm_month"]),
        Line("front", "API requests", tiered(requests, price["api_million_requests"])),
        Line(
            "front",
            "WAF",
            price["waf_acl_month"] + 4 * price["waf_rule_month"] + requests * price["waf_million_requests"],
        ),
        Line("front", "access logs", requests * 1e6 * load.access_log_bytes / _GB * price["logs_gb"]),
        Line("front", "responses", tiered(requests * 1e6 * load.response_bytes / _GB, price["transfer_out_gb"])),
        Line("catalog", "flatten job, hourly, 5 min", HOURS * flatten_dpus * 5 / 60 * price["glue_dpu_hour"]),
        Line(
            "catalog",
            f"{crawlers} crawlers, hourly, 10 min of 2 DPU",
            crawlers * HOURS * 2 * 10 / 60 * price["glue_dpu_hour"],
        ),
        Line("athena", "1 TB scanned", price["athena_tb"]),
        Line("athena", "an endpoint in one zone", HOURS * price["endpoint_hour"]),
        Line("redshift", "8 RPU, one hour a day", 8 * 30 * price["redshift_rpu_hour"]),
        Line("quicksight", "one author", price["quicksight_author_month"]),
        Line(
            "watch",
            f"a dashboard and {watch_alarms} alarms",
            price["dashboard_month"] + watch_alarms * price["alarm_month"],
        ),
    ]


def _lambda(million_calls: float, gb_seconds: float, price: dict[str, Any]) -> float:
    return million_calls * float(price["lambda_million_requests"]) + million_calls * 1e6 * gb_seconds * float(
        price["lambda_gb_second"]
    )


def assumptions(load: Workload, prices: Prices) -> list[str]:
    """Return what the estimate stands on, in sentences."""
    events = "1 event" if load.events_per_request == 1 else f"{load.events_per_request:g} events"
    return [
        f"list prices of {prices.region}, seen {prices.as_of}, no free tiers, no taxes; a month of {HOURS:.0f} hours",
        f"{events} a request, {load.event_bytes} bytes each, {load.offers_share:.0%} of them offers",
        f"{load.events_per_shard:,} events/s a shard and {load.events_per_kpu:,} a KPU, so that peaks have room",
        f"{load.raw_bytes} bytes an event in raw, {load.row_bytes} each enriched and flattened",
        f"all of it kept for {load.months_kept} months in S3 Standard, as it costs once that many have passed",
        "one instance of Aurora, endpoints in one zone, no NAT gateway",
    ]


def markdown(rates: Sequence[float], prices: Prices, load: Workload) -> str:
    """Return the table of the documentation: dollars a month, by part, for some rates."""
    loads = [replace(load, events_per_second=rate) for rate in rates]
    columns = [by_part(estimate(one, prices)) for one in loads]
    batched = [by_part(estimate(replace(one, events_per_request=50.0), prices)) for one in loads]
    rows = [[part, *(f"{column[part]:,.0f}" for column in columns)] for part in NAMES]
    rows.append(["**all**", *(f"**{sum(column.values()):,.0f}**" for column in columns)])
    rows.append(["all, with 50 events a request", *(f"{sum(column.values()):,.0f}" for column in batched)])
    head = ["US dollars a month at", *(f"{rate:,.0f} events/s" for rate in rates)]
    rule = ["---", *("--:" for _ in rates)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])
