"""What the Lambdas make of their events, and the requests that the scaling one sends, checked by botocore itself."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord
from botocore.stub import ANY, Stubber

from clickstream.errors import Refused, Unavailable
from connectors.customers import Customer
from connectors.offers import Seen
from connectors.testing import InMemoryNames
from connectors.users import Users
from connectors.webhook import Home, Webhook
from deploy.lambdas import names, offers, scaling
from deploy.scaling import observe
from deploy.scaling.decide import DAY, Action, Policy
from deploy.scaling.decide import Seen as SeenStream
from tests.lambdas import arrived, offer
from tests.shop import Shop

NOW = datetime(2026, 11, 27, 12, 0, 30, tzinfo=UTC)
POLICY = Policy(least=1, most=32)
CLICKS = "clickstream-dev-clicks"


# Names


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Any]:
    with Users(f"sqlite:///{tmp_path / 'users.db'}") as users:
        users.create()
        users.load([Customer(str(number), "pixel", f"User {number}", Decimal("0.25")) for number in range(3)])
        yield SimpleNamespace(users=users, redis=InMemoryNames())


def test_a_sign_up_names_one_user_and_the_schedule_everybody() -> None:
    assert names.who({"user_id": "35"}) == "35"
    assert names.who({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}) is None


@pytest.mark.parametrize("event", [{}, {"user_id": 35}, {"user_id": ""}, {"user_id": None}, {"Records": []}])
def test_an_event_that_names_nobody_is_refused_with_what_to_send(event: Any) -> None:
    with pytest.raises(Refused, match=r'names no user\. Next: invoke with \{"user_id": "35"\}'):
        names.who(event)


def test_one_name_or_all_are_copied(doors: Any) -> None:
    assert names.update(doors, "1") == 1
    assert doors.redis.names == {"1": "User 1"}
    assert names.update(doors, None) == 3
    assert doors.redis.names == {str(number): f"User {number}" for number in range(3)}


def test_a_user_who_is_not_there_yet_is_waited_for_and_then_left_to_lambdas_own_patience(doors: Any) -> None:
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            doors.users.load([Customer("35", "pixel", "Ada", Decimal("0.25"))])

    assert names.update(doors, "35", sleep) == 1
    assert waited == [0.0, 0.5, 1.0]
    with pytest.raises(Unavailable, match="not committed yet"):
        names.update(doors, "36", lambda _: None)


# Offers


def test_when_time_is_nearly_up_the_rest_is_left_for_the_next_invocation() -> None:
    left = iter([300.0, offers.RESERVE - 1])
    with Shop() as shop:
        batch = offers.Batch(Webhook(shop.url, Home.of(["127.0.0.1"])), Seen(), lambda: next(left))
        records = [KinesisStreamRecord(each) for each in arrived(offer(1), offer(2), offer(3))["Records"]]

        batch.take(records[0])
        for record in records[1:]:
            with pytest.raises(Unavailable, match="time is up"):
                batch.take(record)

    assert len(shop.requests) == 1
    assert (batch.counts.offers, batch.counts.undelivered) == (1, 2)


def test_an_offer_turned_away_is_settled() -> None:
    with Shop() as shop:
        shop.answers.append((410, {}, b""))
        batch = offers.Batch(Webhook(shop.url, Home.of(["127.0.0.1"])), Seen(), lambda: 300.0)
        for _ in range(2):
            batch.take(KinesisStreamRecord(arrived(offer(1))["Records"][0]))

    assert (len(shop.requests), batch.counts.turned_away, batch.counts.repeats) == (1, 1, 1)


def test_without_a_webhook_offers_are_counted_and_nothing_of_them_is_logged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEBHOOK", "")
    context = SimpleNamespace(
        function_name="offers",
        memory_limit_in_mb=512,
        invoked_function_arn="arn:aws:lambda:eu-central-1:123456789012:function:offers",
        aws_request_id="1",
        get_remaining_time_in_millis=lambda: 300_000,
    )

    answer = offers.handler(arrived(offer(9001), b'{"user_id": "hush"}', offer(9002)), context)

    printed = capsys.readouterr().out
    assert len(answer["batchItemFailures"]) == 1
    (metrics,) = [json.loads(line) for line in printed.splitlines() if "_aws" in line]
    assert (metrics["Offers"], metrics["OffersUnreadable"], metrics["OffersRepeated"]) == ([2.0], [1.0], [0.0])
    for words in ("hush", "click-9001", "417.97"):
        assert words not in printed


@pytest.mark.parametrize("allowed", ["", "shop.inside", "10.0.0.0/8,192.168.0.0/16"])
def test_a_webhook_at_a_private_address_is_refused_unless_allowed(
    monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    environ = {"WEBHOOK": "env:ADDRESS", "WEBHOOK_ALLOW_PRIVATE": allowed}
    with Shop() as shop:
        monkeypatch.setenv("ADDRESS", shop.url)
        with pytest.raises(Refused, match="--allow-private"):
            offers.webhook_of(environ)

        webhook = offers.webhook_of({**environ, "WEBHOOK_ALLOW_PRIVATE": f"{allowed}, 127.0.0.0/8"})

        assert webhook is not None
        assert webhook.deliver("7d9", b"{}") == 200


# Scaling: whose alarm it is


def rings(*alarms: str, state: str = "ALARM") -> dict[str, Any]:
    messages = [json.dumps({"AlarmName": alarm, "NewStateValue": state, "Trigger": {}}) for alarm in alarms]
    return {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": message}} for message in messages]}


def test_an_alarm_concerns_the_stream_it_is_named_after() -> None:
    streams = [CLICKS, "clickstream-dev-offers"]

    assert scaling.concerned(rings(f"{CLICKS}-scaling-bytes-high"), streams) == [CLICKS]
    assert scaling.concerned(rings(*(f"{each}-scaling-throttled" for each in streams)), streams) == streams
    assert scaling.concerned({}, streams) == streams


@pytest.mark.parametrize(
    "event",
    [
        rings(f"{CLICKS}-scaling-bytes-high", state="OK"),
        rings("somebody-elses-scaling-bytes-high"),
        {"Records": []},
        *({"Records": [record]} for record in ({}, {"Sns": {}}, {"Sns": {"Message": "hello"}}, {"Sns": None})),
        *({"Records": [{"Sns": {"Message": text}}]} for text in ("[]", "7", '{"AlarmName": 7}', "[" * 100_000)),
    ],
)
def test_what_is_no_alarm_of_ours_that_rings_concerns_nobody(event: Any) -> None:
    assert scaling.concerned(event, [CLICKS]) == []


# Scaling: what AWS is asked


class Asked:
    """Clients that botocore checks requests and answers of."""

    def __init__(self) -> None:
        login = {"region_name": "eu-central-1", "aws_access_key_id": "id", "aws_secret_access_key": "key"}
        self.kinesis, self.cloudwatch = (boto3.client(each, **login) for each in ("kinesis", "cloudwatch"))
        self.of_kinesis, self.of_cloudwatch = Stubber(self.kinesis), Stubber(self.cloudwatch)

    def seen(self, tag: str | None = None, minutes_old: float = 10_000, **summary: Any) -> None:
        stream = {
            "StreamName": CLICKS,
            "StreamARN": f"arn:aws:kinesis:eu-central-1:123456789012:stream/{CLICKS}",
            "StreamStatus": "ACTIVE",
            "StreamModeDetails": {"StreamMode": "PROVISIONED"},
            "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": NOW - timedelta(minutes=minutes_old),
            "EnhancedMonitoring": [],
            "OpenShardCount": 8,
        } | summary
        self.of_kinesis.add_response(
            "describe_stream_summary", {"StreamDescriptionSummary": stream}, {"StreamName": CLICKS}
        )
        if stream["StreamModeDetails"]["StreamMode"] == "PROVISIONED":
            tags = [{"Key": "team", "Value": "shop"}, *([{"Key": observe.ACTIONS_TAG, "Value": tag}] if tag else [])]
            self.of_kinesis.add_response(
                "list_tags_for_stream", {"Tags": tags, "HasMoreTags": False}, {"StreamName": CLICKS}
            )

    def measured(self, age_ms: float | None = 100.0, **values: float) -> None:
        end = NOW.replace(second=0)
        moments = [end - timedelta(minutes=ago) for ago in range(1, 61)]
        of = {"bytes": 0.0, "records": 0.0, "throttled": 0.0} | values
        results = [{"Id": key, "Timestamps": moments, "Values": [value] * 60} for key, value in of.items()]
        ages = [] if age_ms is None else [age_ms] * 60
        results.append({"Id": "age", "Timestamps": moments[: len(ages)], "Values": ages})
        expected = {"MetricDataQueries": ANY, "StartTime": end - timedelta(hours=1), "EndTime": end}
        self.of_cloudwatch.add_response("get_metric_data", {"MetricDataResults": results}, expected)
        self.of_kinesis.add_response(
            "describe_limits",
            {"ShardLimit": 500, "OpenShardCount": 20, "OnDemandStreamCount": 0, "OnDemandStreamCountLimit": 50},
            {},
        )

    def alarms(self, threshold: float, state: str) -> None:
        alarm = {
            "AlarmName": f"{CLICKS}-scaling-records-high",
            "AlarmArn": "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:x",
            "ActionsEnabled": True,
            "AlarmActions": ["arn:aws:sns:eu-central-1:123456789012:clickstream-dev-scaling"],
            "StateValue": state,
            "StateReason": "because",
            "MetricName": "IncomingRecords",
            "Namespace": "AWS/Kinesis",
            "Statistic": "Sum",
            "Dimensions": [{"Name": "StreamName", "Value": CLICKS}],
            "Period": 60,
            "EvaluationPeriods": 3,
            "DatapointsToAlarm": 1,
            "Threshold": threshold,
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
        }
        self.of_cloudwatch.add_response(
            "describe_alarms",
            {"MetricAlarms": [alarm]},
            {"AlarmNamePrefix": f"{CLICKS}-scaling-", "AlarmTypes": ["MetricAlarm"]},
        )
        self.kept = {key: alarm[key] for key in alarm if key not in ("AlarmArn", "StateValue", "StateReason")}

    def see_to(self) -> Any:
        with self.of_kinesis, self.of_cloudwatch:
            decision = scaling.see_to(CLICKS, POLICY, self.kinesis, self.cloudwatch, NOW)
            self.of_kinesis.assert_no_pending_responses()
            self.of_cloudwatch.assert_no_pending_responses()
        return decision


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_a_busy_stream_is_written_down_changed_and_its_alarms_set_and_put_back(asked: Asked) -> None:
    earlier = int(NOW.timestamp()) - 7200
    asked.seen(tag=f"{earlier}:8 nonsense 7:x :8 {earlier}:0 99999999999:8")
    asked.measured(records=8 * 60_000, bytes=1e6)
    asked.of_kinesis.add_response(
        "add_tags_to_stream",
        {},
        {"StreamName": CLICKS, "Tags": {observe.ACTIONS_TAG: f"{earlier}:8 {int(NOW.timestamp())}:14"}},
    )
    asked.of_kinesis.add_response(
        "update_shard_count",
        {"StreamName": CLICKS, "CurrentShardCount": 8, "TargetShardCount": 14},
        {"StreamName": CLICKS, "TargetShardCount": 14, "ScalingType": "UNIFORM_SCALING"},
    )
    asked.alarms(threshold=0.0, state="ALARM")
    asked.of_cloudwatch.add_response("put_metric_alarm", {}, asked.kept | {"Threshold": 0.8 * 14 * 60_000})
    asked.of_cloudwatch.add_response(
        "set_alarm_state",
        {},
        {"AlarmName": f"{CLICKS}-scaling-records-high", "StateValue": "INSUFFICIENT_DATA", "StateReason": ANY},
    )

    assert asked.see_to().shards == 14


def test_a_quiet_stream_is_halved(asked: Asked) -> None:
    asked.seen()
    asked.measured(records=60_000)
    asked.of_kinesis.add_response("add_tags_to_stream", {}, {"StreamName": CLICKS, "Tags": ANY})
    asked.of_kinesis.add_response(
        "update_shard_count", {}, {"StreamName": CLICKS, "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"}
    )
    asked.alarms(threshold=0.8 * 4 * 60_000, state="OK")

    assert asked.see_to().shards == 4


@pytest.mark.parametrize(
    ("age_ms", "minutes_old", "why"),
    [(61_000.0, 10_000, "readers are behind"), (None, 10_000, "nobody knows"), (0.0, 59, "about right")],
)
def test_a_quiet_stream_keeps_its_shards_while_readers_lag_or_it_is_young(
    asked: Asked, age_ms: float | None, minutes_old: float, why: str
) -> None:
    asked.seen(minutes_old=minutes_old)
    asked.measured(age_ms=age_ms)
    asked.alarms(threshold=0.8 * 8 * 60_000, state="OK")

    decision = asked.see_to()

    assert decision.shards is None
    assert why in decision.why


def test_an_on_demand_stream_is_left_alone_with_its_alarms(asked: Asked) -> None:
    asked.seen(StreamModeDetails={"StreamMode": "ON_DEMAND"})

    assert asked.see_to().shards is None


@pytest.mark.parametrize("code", ["LimitExceededException", "ResourceInUseException"])
def test_a_change_that_kinesis_puts_off_is_looked_at_again(asked: Asked, code: str) -> None:
    asked.seen()
    asked.measured(records=8 * 60_000)
    asked.of_kinesis.add_response("add_tags_to_stream", {}, None)
    asked.of_kinesis.add_client_error("update_shard_count", code, "said Kinesis")
    asked.alarms(threshold=0.8 * 8 * 60_000, state="ALARM")
    asked.of_cloudwatch.add_response("set_alarm_state", {}, None)

    decision = asked.see_to()

    assert (decision.shards, decision.look_again) == (None, True)
    assert code in decision.why


def test_a_role_without_the_right_is_refused_in_words(asked: Asked) -> None:
    asked.of_kinesis.add_client_error("describe_stream_summary", "AccessDeniedException", "no", 400)

    with pytest.raises(Refused, match=r"looking at the stream .*AccessDenied.* Next: check the name"):
        asked.see_to()


def test_ten_actions_fit_into_a_tag_and_into_what_a_tag_may_hold() -> None:
    actions = [Action(NOW - DAY / 2 + timedelta(minutes=index), 10_000) for index in range(10)]

    written = observe._written(actions)

    assert len(written) <= 256
    assert set(written) <= set("0123456789: ")
    assert observe._actions([{"Key": observe.ACTIONS_TAG, "Value": written}]) == [
        Action(action.at.replace(microsecond=0), action.shards) for action in actions
    ]


def test_actions_older_than_a_day_are_no_longer_written_down(asked: Asked) -> None:
    stream = SeenStream(NOW, 8, (), actions=[Action(NOW - timedelta(days=2), 4)])
    tags = {observe.ACTIONS_TAG: f"{int(NOW.timestamp())}:16"}
    with asked.of_kinesis:
        asked.of_kinesis.add_response("add_tags_to_stream", {}, {"StreamName": CLICKS, "Tags": tags})
        asked.of_kinesis.add_response("update_shard_count", {}, None)

        observe.change(asked.kinesis, CLICKS, stream, 16)

        asked.of_kinesis.assert_no_pending_responses()


def test_a_recorded_minute_holds_what_was_turned_away_too(asked: Asked) -> None:
    end = NOW.replace(second=0)
    results = [
        {"Id": key, "Timestamps": [end - timedelta(minutes=2)], "Values": [value]}
        for key, value in {"bytes": 3000.0, "records": 10.0, "throttled": 5.0}.items()
    ]
    with asked.of_cloudwatch:
        asked.of_cloudwatch.add_response("get_metric_data", {"MetricDataResults": results}, None)

        loads = observe.recorded(asked.cloudwatch, CLICKS, end - timedelta(minutes=3), end)

    assert [(load.bytes, load.records) for load in loads] == [(0, 0), (4500, 15), (0, 0)]
