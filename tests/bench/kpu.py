"""What one KPU of Managed Flink carries, and what a million events cost there, by what an event costs here."""

import math
from typing import NamedTuple

from deploy.cost import HOURS, Prices, Workload
from tests.bench.measure import Cost

BUSY = 0.4  # of a core such as the one measured: a vCPU may be half a core, and a job that has stopped must catch up
STORAGE_GB = 50  # a KPU


class Kpu(NamedTuple):
    """What one KPU carries: events a second, from so many shards, at so many dollars a million events."""

    rate: float
    shards: int
    flink_dollars: float
    kinesis_dollars: float


def kpu(cost: Cost, prices: Prices) -> Kpu:
    """Size a KPU by the CPU time of the JVM and of Python; Redis is a machine of its own, and not in the dollars."""
    rate = BUSY * 1e6 / cost.micros("jvm", "python")
    shards = math.ceil(rate / Workload(rate).events_per_shard)
    millions_an_hour = rate * 3600 / 1e6
    kpu_hour = prices.of["flink_kpu_hour"] + STORAGE_GB * prices.of["flink_gb_month"] / HOURS
    shard_hours = shards * prices.of["kinesis_shard_hour"]
    return Kpu(
        rate,
        shards,
        kpu_hour / millions_an_hour,
        shard_hours / millions_an_hour + prices.of["kinesis_million_put_units"],
    )
