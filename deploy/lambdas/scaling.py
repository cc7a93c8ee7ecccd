"""Lambda `scaling`: looks at a stream when one of its alarms rings, and changes its shards if that is decided.

The alarms, called `STREAM-scaling-…`, tell by an SNS topic; invoked with anything else it looks at all its streams.
What an alarm says beyond its name does not matter: the decision is made from what the stream's metrics say now.
"""

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from aws_lambda_powertools import Logger, Metrics, single_metric
from aws_lambda_powertools.metrics import MetricUnit

from clickstream.errors import Unavailable
from deploy.scaling.decide import Decision, Policy, decide
from deploy.scaling.observe import arm, change, client_for, look

NAMESPACE: Final = "Clickstream"

logger = Logger(service="scaling")
metrics = Metrics(namespace=NAMESPACE, service="scaling")


def policy_of(environ: Mapping[str, str]) -> Policy:
    """Read the policy."""
    return Policy(least=int(environ["LEAST_SHARDS"]), most=int(environ["MOST_SHARDS"]))


def alarm_prefix(stream: str) -> str:
    """Return how the names of a stream's alarms begin."""
    return f"{stream}-scaling-"


def concerned(event: Mapping[str, Any], streams: Iterable[str]) -> list[str]:
    """Return the streams whose alarms ring, all if the event is not from SNS; no other stream is ever named."""
    if "Records" not in event:
        return list(streams)
    ringing = {name for record in event["Records"] if (name := _ringing(record)) is not None}
    return [stream for stream in streams if any(name.startswith(alarm_prefix(stream)) for name in ringing)]


def see_to(stream: str, policy: Policy, kinesis: Any, cloudwatch: Any, now: datetime) -> Decision:
    """Look at a stream, change its shards if that is decided, and set its alarms to what it has then."""
    seen = look(policy, kinesis, cloudwatch, stream, now)
    decision = decide(policy, seen)
    shards = seen.shards
    if decision.shards is not None:
        try:
            change(kinesis, stream, seen, decision.shards)
            shards = decision.shards
        except Unavailable as trouble:  # it is changing already, or somebody else has used up the day's changes
            decision = Decision(None, str(trouble), look_again=True)
    if not seen.on_demand:
        arm(policy, cloudwatch, alarm_prefix(stream), shards, again=decision.look_again)
    logger.info(decision.why, extra={"stream": stream, "shards": seen.shards, "to": decision.shards})
    with single_metric("Shards", MetricUnit.Count, shards, namespace=NAMESPACE) as metric:
        metric.add_dimension("stream", stream)
    return decision


@metrics.log_metrics
@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, int | None]:  # noqa: ARG001
    """See to the streams whose alarms ring; say to how many shards each was changed."""
    streams = os.environ["STREAMS"].split(",")
    kinesis, cloudwatch = client_for("kinesis"), client_for("cloudwatch")
    now, policy = datetime.now(UTC), policy_of(os.environ)
    changed = {stream: see_to(stream, policy, kinesis, cloudwatch, now).shards for stream in concerned(event, streams)}
    metrics.add_metric("ShardChanges", MetricUnit.Count, sum(shards is not None for shards in changed.values()))
    return changed


def _ringing(record: Mapping[str, Any]) -> str | None:
    """Return the name of the alarm that a message of SNS says is ringing."""
    try:
        message = json.loads(record["Sns"]["Message"])
        name, state = message["AlarmName"], message["NewStateValue"]
    except (KeyError, TypeError, RecursionError, ValueError):
        return None
    return name if isinstance(name, str) and state == "ALARM" else None
