"""Looks at a stream by way of Kinesis and CloudWatch, and changes its shards and its alarms."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from clickstream.errors import Refused, Unavailable
from deploy.scaling.decide import MOST_SHARDS, Action, Minute, Policy, Seen, latest, thresholds
from deploy.scaling.traces import MINUTE, Load

ACTIONS_TAG: Final = "clickstream-scaling"
"""On the stream: its recent actions as `epoch:shards`, of which ten fit into a tag's 256 characters.

A tag survives a new version of the Lambda and a new stack, is there and gone with the stream, can be read in the
console, and asks for no resource and no permission beyond the stream's own. CloudTrail, which would know a person's
changes too, is a quarter of an hour late and cannot be limited to one stream."""

_SUMS: Final = {
    "bytes": "IncomingBytes",
    "records": "IncomingRecords",
    "throttled": "WriteProvisionedThroughputExceeded",
}
_AGE: Final = "GetRecords.IteratorAgeMilliseconds"
_PATIENCE: Final = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 4})
_BUSY: Final = {"LimitExceededException", "ResourceInUseException", "ThrottlingException", "Throttling"}
# what DescribeAlarms answers and PutMetricAlarm takes
_KEPT: Final = (
    *("AlarmName", "AlarmDescription", "ActionsEnabled", "OKActions", "AlarmActions", "InsufficientDataActions"),
    *("MetricName", "Namespace", "Statistic", "Dimensions", "Period", "Unit", "EvaluationPeriods"),
    *("DatapointsToAlarm", "Threshold", "ComparisonOperator", "TreatMissingData"),
)


def client_for(service: str, endpoint: str | None = None, region: str | None = None) -> Any:
    """Make a client of an AWS service."""
    try:
        return boto3.client(service, endpoint_url=endpoint, region_name=region, config=_PATIENCE)
    except (BotoCoreError, ValueError) as error:
        raise Refused(f"{service} cannot be asked: {error}. Next: give --region eu-central-1, or your own") from error


def recorded(cloudwatch: Any, stream: str, start: datetime, end: datetime) -> list[Load]:
    """Return what producers wanted to put into a stream in each minute from `start` to before `end`."""
    minutes, _ = _metrics(cloudwatch, stream, start, end)
    loads = []
    for index, minute in enumerate(minutes):
        wanted = minute.records + minute.throttled
        loads.append(Load(start + index * MINUTE, wanted * minute.record_bytes, wanted))
    return loads


def look(policy: Policy, kinesis: Any, cloudwatch: Any, stream: str, now: datetime) -> Seen:
    """See a stream as it is; `Unavailable` or `Refused` if AWS does not say."""
    end = now.replace(second=0, microsecond=0)
    with _asking(f"looking at the stream {stream}"):
        summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
        on_demand = summary.get("StreamModeDetails", {}).get("StreamMode") == "ON_DEMAND"
        if on_demand:
            return Seen(now, summary["OpenShardCount"], (), on_demand=True)
        actions = _actions(kinesis.list_tags_for_stream(StreamName=stream)["Tags"])
    minutes, behind = _metrics(cloudwatch, stream, end - policy.quiet * MINUTE, end)
    age = (now - summary["StreamCreationTimestamp"]) // MINUTE  # before it was there it was not quiet
    return Seen(
        now=now,
        shards=summary["OpenShardCount"],
        minutes=minutes[-max(age, policy.recent) :],
        behind=behind,
        actions=actions,
        free=_free(kinesis),
        active=summary["StreamStatus"] == "ACTIVE",
    )


def change(kinesis: Any, stream: str, seen: Seen, shards: int) -> None:
    """Have a stream change its shards; `Unavailable` if AWS will not do so now.

    The action is written down before it is taken: who is stopped in between has counted one too many, never one too
    few. Two at the same time do no harm either, as Kinesis takes one change at a time.
    """
    with _asking(f"changing {stream} from {seen.shards:,} to {shards:,} shards"):
        actions = [*latest(seen.actions, seen.now), Action(seen.now, shards)]
        kinesis.add_tags_to_stream(StreamName=stream, Tags={ACTIONS_TAG: _written(actions)})
        kinesis.update_shard_count(StreamName=stream, TargetShardCount=shards, ScalingType="UNIFORM_SCALING")


def arm(policy: Policy, cloudwatch: Any, prefix: str, shards: int, *, again: bool) -> None:
    """Have the alarms whose names begin so ring at what fits the shard count; with `again`, those that ring anew too.

    An alarm tells of itself once, when it begins to ring. Put back, it looks at its metric again and tells again.
    """
    levels = {f"{prefix}{word}": level for word, level in thresholds(policy, shards).items()}
    with _asking(f"setting the alarms {prefix}*"):
        for alarm in cloudwatch.describe_alarms(AlarmNamePrefix=prefix, AlarmTypes=["MetricAlarm"])["MetricAlarms"]:
            name = alarm["AlarmName"]
            if alarm["Threshold"] != levels.get(name, alarm["Threshold"]):
                kept = {key: alarm[key] for key in _KEPT if alarm.get(key) is not None}
                cloudwatch.put_metric_alarm(**kept | {"Threshold": levels[name]})
            if again and alarm["StateValue"] == "ALARM":
                cloudwatch.set_alarm_state(
                    AlarmName=name, StateValue="INSUFFICIENT_DATA", StateReason="scaling is to look at it again"
                )


def _free(kinesis: Any) -> int:
    """Return how many shards the account may still open; where that cannot be asked, Kinesis itself says no in time."""
    try:
        limits = kinesis.describe_limits()
    except ClientError:
        return MOST_SHARDS
    return int(limits["ShardLimit"] - limits["OpenShardCount"])


def _metrics(cloudwatch: Any, stream: str, start: datetime, end: datetime) -> tuple[Sequence[Minute], timedelta | None]:
    """Return each minute's traffic, and how far behind readers were at most in the last five that say so."""
    count = (end - start) // MINUTE
    of = {name: [0.0] * count for name in _SUMS}
    ages: dict[int, float] = {}
    queries = [_query(name, metric, "Sum", stream) for name, metric in _SUMS.items()]
    request = {"MetricDataQueries": [*queries, _query("age", _AGE, "Maximum", stream)]}
    with _asking(f"reading the metrics of {stream}"):
        pages = cloudwatch.get_paginator("get_metric_data").paginate(StartTime=start, EndTime=end, **request)
        for result in (result for page in pages for result in page["MetricDataResults"]):
            for moment, value in zip(result["Timestamps"], result["Values"], strict=True):
                index = (moment - start) // MINUTE
                if result["Id"] == "age":
                    ages[index] = value
                elif 0 <= index < count:
                    of[result["Id"]][index] = value
    last = [ages[index] for index in sorted(ages)[-5:] if index >= count - 10]
    behind = timedelta(milliseconds=max(last)) if last else None
    return [Minute(*values) for values in zip(*of.values(), strict=True)], behind


def _query(name: str, metric: str, statistic: str, stream: str) -> Mapping[str, Any]:
    of = {
        "Namespace": "AWS/Kinesis",
        "MetricName": metric,
        "Dimensions": [{"Name": "StreamName", "Value": stream}],
    }
    return {"Id": name, "MetricStat": {"Metric": of, "Period": 60, "Stat": statistic}}


def _actions(tags: Sequence[Mapping[str, str]]) -> list[Action]:
    """Read the tag; what a person has made of it may be anything, and counts as far as it can be read."""
    words = next((tag["Value"] for tag in tags if tag["Key"] == ACTIONS_TAG), "").split()
    pairs = [word.partition(":") for word in words]
    return [
        Action(datetime.fromtimestamp(int(epoch), UTC), int(shards))
        for epoch, _, shards in pairs
        if epoch.isdecimal() and len(epoch) <= 10 and shards.isdecimal() and len(shards) <= 5 and int(shards) > 0
    ]


def _written(actions: Sequence[Action]) -> str:
    return " ".join(f"{int(action.at.timestamp())}:{action.shards}" for action in actions)


@contextmanager
def _asking(what: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if error.response.get("Error", {}).get("Code") in _BUSY or status >= 500:
            raise Unavailable(f"{what}: AWS answered {error}. Next: try again later") from error
        raise Refused(
            f"{what}: AWS answered {error}. Next: check the name, the region and the role's rights"
        ) from error
    except BotoCoreError as error:
        raise Unavailable(
            f"{what}: AWS cannot be asked ({error}). Next: check region, credentials and network"
        ) from error
