"""The Lambdas as AWS runs them: real zips in stacks of our templates on an emulator, with real servers around them."""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pymysql
import pytest

from cli.servers import LOOPBACK, PROJECT, RedisServer
from connectors.users import Users
from deploy.scaling.traces import read_trace
from tests.lambdas import arrived, offer
from tests.servers import MariaDb, S3Server
from tests.shop import Shop
from tests.tls import TlsFront

TEMPLATES = PROJECT / "deploy" / "templates"
PATIENCE = 120.0  # seconds; a bound, not a claim
BUCKET = "clickstream-test-artifacts"
WEBHOOK_SECRET = "clickstream-test-webhook"
CLICKS, OFFERS = "clickstream-test-clicks", "clickstream-test-offers"


def eventually(true: Callable[[], Any], what: str) -> Any:
    """Ask until it is so, and return what it is."""
    deadline = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


class Aws:
    """An emulator with our two stacks, and clients to look behind what CloudFormation says."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self._clients: dict[str, Any] = {}

    def __getattr__(self, service: str) -> Any:  # aws.kinesis, aws.lambda_
        if service not in self._clients:
            self._clients[service] = self.server.client(service.rstrip("_"))
        return self._clients[service]

    def deploy(self, part: str, outputs: Mapping[str, str]) -> dict[str, str]:
        """Create a stack from a template, as `clickstream deploy` wires it; return all outputs so far."""
        body = (TEMPLATES / f"{part}.yaml").read_text()
        known = self.cloudformation.validate_template(TemplateBody=body)["Parameters"]
        names = {parameter["ParameterKey"] for parameter in known}
        self.cloudformation.create_stack(
            StackName=f"clickstream-test-{part}",
            TemplateBody=body,
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in outputs.items() if k in names],
        )
        stack = eventually(lambda: self._stack(part), f"the stack {part}")
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack.get("StackStatusReason")
        return {**outputs, **{each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}}

    def _stack(self, part: str) -> Any:
        found = self.cloudformation.describe_stacks(StackName=f"clickstream-test-{part}")["Stacks"][0]
        return None if found["StackStatus"].endswith("IN_PROGRESS") else found

    def invoke(self, function: str, event: Any) -> Any:
        answer = self.lambda_.invoke(FunctionName=function, Payload=json.dumps(event).encode())
        told = json.loads(answer["Payload"].read() or b"null")
        assert "FunctionError" not in answer, told
        return told

    def set(self, function: str, **variables: str) -> None:
        """Set environment variables beside those of the template."""
        kept = self.lambda_.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
        self.lambda_.update_function_configuration(
            FunctionName=function, Environment={"Variables": {**kept, **variables}}
        )

    def schedule(self) -> Any:
        (rule,) = self.events.list_rules()["Rules"]
        return rule

    def shards(self, stream: str) -> int:
        summary = self.kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
        return int(summary["OpenShardCount"])

    def alarms(self, stream: str) -> dict[str, Any]:
        found = self.cloudwatch.describe_alarms(AlarmNamePrefix=f"{stream}-scaling-")["MetricAlarms"]
        return {alarm["AlarmName"].removeprefix(f"{stream}-scaling-"): alarm for alarm in found}

    def measured(self, stream: str, **sums: float) -> None:
        """Put what Kinesis would say of the minute before this one."""
        minute = datetime.now(UTC).replace(second=0, microsecond=0).timestamp() - 60
        self.cloudwatch.put_metric_data(
            Namespace="AWS/Kinesis",
            MetricData=[
                {
                    "MetricName": name,
                    "Dimensions": [{"Name": "StreamName", "Value": stream}],
                    "Timestamp": minute,
                    "Value": value,
                }
                for name, value in sums.items()
            ],
        )


class Shared:
    """The servers that AWS would have: Aurora, and a Redis with TLS and a password."""

    def __init__(self, mariadb: MariaDb, redis: Any, front: TlsFront, password: str) -> None:
        self.mariadb, self.redis, self.front, self.redis_password = mariadb, redis, front, password

    def names(self) -> dict[str, str]:
        keys = self.redis.keys("user:*")
        return {key.decode()[5:]: self.redis.hget(key, "name").decode() for key in keys}


@pytest.fixture(scope="module")
def shared(mariadb: MariaDb, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("shared")
    password = secrets.token_urlsafe(24)
    with (
        RedisServer(folder / "redis") as server,
        server.client(password=password) as client,
        TlsFront(folder, server.port) as front,
    ):
        with server.client() as first:
            first.config_set("requirepass", password)
        yield Shared(mariadb, client, front, password)


@pytest.fixture(scope="module")
def aws(
    lambda_zips: dict[str, Path], shared: Shared, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Aws, dict[str, str]]]:
    with S3Server(tmp_path_factory.mktemp("aws")) as server:
        yield deployed(Aws(server), lambda_zips, shared)


def deployed(aws: Aws, zips: Mapping[str, Path], shared: Shared) -> tuple[Aws, dict[str, str]]:
    aws.s3.create_bucket(Bucket=BUCKET)
    for name, zipped in zips.items():
        aws.s3.upload_file(str(zipped), BUCKET, f"code/{name}.zip")
    for stream, shards in ((CLICKS, 2), (OFFERS, 2)):
        aws.kinesis.create_stream(StreamName=stream, ShardCount=shards)
    login = json.dumps({"username": shared.mariadb.user, "password": shared.mariadb.password})
    database = aws.secretsmanager.create_secret(Name="rds!cluster-test", SecretString=login)["ARN"]
    redis = aws.secretsmanager.create_secret(Name="clickstream-test-redis", SecretString=shared.redis_password)["ARN"]
    webhook = aws.secretsmanager.create_secret(Name=WEBHOOK_SECRET, SecretString="https://shop.example/offers")["ARN"]
    arn = {
        stream: aws.kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamARN"]
        for stream in (CLICKS, OFFERS)
    }
    outputs = {
        "Environment": "test",
        "ArtifactsBucket": BUCKET,
        **{f"{name.capitalize()}LambdaKey": f"code/{name}.zip" for name in zips},
        "PrivateSubnetIds": "subnet-1,subnet-2",
        "LambdaSecurityGroupId": "sg-1",
        "RedisEndpoint": LOOPBACK,
        "RedisPort": str(shared.front.port),
        "RedisSecretArn": redis,
        "DatabaseEndpoint": LOOPBACK,
        "DatabasePort": str(shared.mariadb.port),
        "DatabaseSecretArn": database,
        "ClicksStreamName": CLICKS,
        "ClicksStreamArn": arn[CLICKS],
        "OffersStreamName": OFFERS,
        "OffersStreamArn": arn[OFFERS],
        "StreamKeyArn": aws.kms.create_key()["KeyMetadata"]["Arn"],
        "NamesSchedule": "cron(* * * * ? *)",
        "OffersWebhookSecretArn": webhook,
    }
    outputs = aws.deploy("scaling", aws.deploy("lambdas", outputs))
    aws.set(
        outputs["NamesLambdaName"],
        DATABASE_CA=str(shared.mariadb.ca),
        REDIS_URL=f"rediss://{LOOPBACK}:{shared.front.port}/0?ssl_ca_certs={shared.front.ca}",
    )
    aws.set(outputs["OffersLambdaName"], WEBHOOK_ALLOW_PRIVATE="127.0.0.0/8")
    aws.events.disable_rule(Name=aws.schedule()["Name"])  # so that it is the trigger that copies names
    return aws, outputs


# Shards


def test_an_alarm_that_rings_changes_the_shards_and_is_set_anew(aws: tuple[Aws, dict[str, str]]) -> None:
    its, _ = aws
    before = its.shards(CLICKS)

    its.measured(CLICKS, IncomingRecords=119_000, IncomingBytes=40_000_000)
    eventually(lambda: its.shards(CLICKS) != before, "the shards did not change")

    assert (before, its.shards(CLICKS), its.shards(OFFERS)) == (2, 4, 2)
    eventually(lambda: its.alarms(CLICKS)["records-high"]["Threshold"] == 0.8 * 4 * 60_000, "the alarm is not set")
    tags = {tag["Key"]: tag["Value"] for tag in its.kinesis.list_tags_for_stream(StreamName=CLICKS)["Tags"]}
    moment, _, shards = tags["clickstream-scaling"].partition(":")
    assert shards == "4"
    assert abs(int(moment) - time.time()) < 2 * PATIENCE


def test_a_ringing_alarm_that_has_to_wait_is_put_back_so_that_it_rings_again(aws: tuple[Aws, dict[str, str]]) -> None:
    its, outputs = aws
    its.invoke(outputs["ScalingLambdaName"], {})
    its.cloudwatch.set_alarm_state(AlarmName=f"{CLICKS}-scaling-throttled", StateValue="ALARM", StateReason="test")

    its.measured(CLICKS, WriteProvisionedThroughputExceeded=900_000)

    eventually(lambda: its.alarms(CLICKS)["throttled"]["StateValue"] == "INSUFFICIENT_DATA", "it was not put back")
    assert its.shards(CLICKS) == 4  # the change of just now is too fresh for another


def test_a_streams_traffic_is_recorded_for_the_simulator(aws: tuple[Aws, dict[str, str]], tmp_path: Path) -> None:
    its, _ = aws
    its.measured(OFFERS, IncomingRecords=600, IncomingBytes=180_000)
    words = ("scaling", "record", "--stream", OFFERS, "--hours", "1", "--to", str(tmp_path / "trace.csv"))
    login = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}

    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *words, "--endpoint", its.server.endpoint, "--region", "us-east-1"],
        cwd=PROJECT,
        env={**os.environ, **login},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == f"60 minutes of {OFFERS} are in {tmp_path / 'trace.csv'}\n"
    loads = read_trace(tmp_path / "trace.csv")
    assert [(load.bytes, load.records) for load in loads if load.records] == [(180_000, 600)]


# Offers


def failed(event: Mapping[str, Any], *numbers: int) -> dict[str, Any]:
    return {
        "batchItemFailures": [
            {"itemIdentifier": event["Records"][number]["kinesis"]["sequenceNumber"]} for number in numbers
        ]
    }


@contextmanager
def webhook(its: Aws, outputs: Mapping[str, str]) -> Iterator[Shop]:
    """Have offers sent to a shop, by an instance that has met none yet."""
    with Shop() as shop:
        its.secretsmanager.put_secret_value(SecretId=WEBHOOK_SECRET, SecretString=shop.url)
        its.set(outputs["OffersLambdaName"], INSTANCE=secrets.token_hex(4))
        yield shop


def told(shop: Shop) -> list[str]:
    return [headers["Idempotency-Key"] for _, headers, _ in shop.requests]


def test_offers_of_the_stream_reach_the_webhook_through_the_mapping(aws: tuple[Aws, dict[str, str]]) -> None:
    its, outputs = aws
    entries = [{"Data": offer(number), "PartitionKey": str(number)} for number in range(20)]
    with webhook(its, outputs) as shop:
        for _ in range(2):
            its.kinesis.put_records(StreamName=OFFERS, Records=entries)
        eventually(lambda: len(set(told(shop))) == 20, "not all offers came")
        its.kinesis.put_record(StreamName=OFFERS, Data=offer(20), PartitionKey="0")
        eventually(lambda: "offer-20" in told(shop), "the last one did not come")

    assert sorted(told(shop)) == sorted(set(told(shop)))  # put twice, handed on once
    assert {json.loads(body)["product_id"] for _, _, body in shop.requests} == set(range(21))


def test_a_poison_record_is_reported_and_the_others_are_handed_on_once(aws: tuple[Aws, dict[str, str]]) -> None:
    its, outputs = aws
    event = arrived(offer(100), b"poison", offer(101), b'{"offer_id": 7}')
    with webhook(its, outputs) as shop:
        answers = [its.invoke(outputs["OffersLambdaName"], event) for _ in range(2)]

    assert answers == [failed(event, 1, 3)] * 2
    assert told(shop) == ["offer-100", "offer-101"]


def test_while_the_webhook_is_down_all_comes_again(aws: tuple[Aws, dict[str, str]]) -> None:
    its, outputs = aws
    event = arrived(*map(offer, range(200, 204)))
    with webhook(its, outputs) as shop:
        shop.answers.extend([(200, {}, b""), *[(503, {"Retry-After": "0"}, b"")] * 3])

        first = its.invoke(outputs["OffersLambdaName"], event)
        second = its.invoke(outputs["OffersLambdaName"], event)

    assert first == failed(event, 1, 2, 3)  # the last two were not even tried
    assert second == failed(event)
    assert told(shop) == ["offer-200", *["offer-201"] * 3, "offer-201", "offer-202", "offer-203"]


def test_the_mapping_has_all_that_keeps_a_poison_record_from_stopping_the_stream(
    aws: tuple[Aws, dict[str, str]],
) -> None:
    its, outputs = aws
    (mapping,) = its.lambda_.list_event_source_mappings(FunctionName=outputs["OffersLambdaName"])["EventSourceMappings"]
    queue = its.sqs.get_queue_url(QueueName=outputs["OffersDlqName"])["QueueUrl"]
    attributes = its.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]

    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["DestinationConfig"]["OnFailure"]["Destination"] == attributes["QueueArn"]
    assert mapping["BisectBatchOnFunctionError"] in (True, "true")
    assert int(mapping["MaximumRetryAttempts"]) == 10


# Names


def hear(mariadb: MariaDb) -> None:
    """Make the function that Aurora has write down what it is told."""
    mariadb.execute(
        "USE clickstream",
        "DROP TABLE IF EXISTS told",
        "CREATE TABLE told (id INT AUTO_INCREMENT PRIMARY KEY, arn TEXT, payload TEXT) ENGINE=MyISAM CHARSET utf8mb4",
        "DROP FUNCTION IF EXISTS lambda_async",
        "CREATE FUNCTION lambda_async(arn TEXT, payload TEXT CHARSET utf8mb4) RETURNS TEXT "
        "BEGIN IF payload LIKE '%nobody-listens%' THEN SIGNAL SQLSTATE '45000'; END IF; "
        "INSERT INTO told (arn, payload) VALUES (arn, payload); RETURN ''; END",
    )


def statement(file: str, names_arn: str) -> str:
    """Return the one statement in a file, as the command at its top makes it."""
    lines = (PROJECT / "deploy" / "sql" / file).read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("--")).replace("NAMES_LAMBDA_ARN", names_arn)


@pytest.fixture
def signing_up(aws: tuple[Aws, dict[str, str]], shared: Shared) -> Iterator[Any]:
    """The shop's own connection, on a table with the trigger."""
    mariadb = shared.mariadb
    with Users(mariadb.url, password=mariadb.password, tls_ca=mariadb.ca) as users:
        users.create()
    hear(mariadb)
    shared.redis.flushall()
    with pymysql.connect(
        host=LOOPBACK, port=mariadb.port, user=mariadb.user, password=mariadb.password, database="clickstream"
    ) as connection:
        for file in ("signup.sql", "renamed.sql", "signup.sql"):  # again is harmless
            run(connection, statement(file, aws[1]["NamesLambdaArn"]))
        yield connection
    mariadb.execute(
        "DROP TRIGGER clickstream.clickstream_signed_up",
        "DROP TRIGGER clickstream.clickstream_renamed",
        "DELETE FROM clickstream.customers",
    )


def run(connection: Any, statement: str, *values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


INSERT = "INSERT INTO customers (customer_id, pixel_id, name, price_per_click) VALUES (%s, 'wjgao4w1oi', %s, 0.25)"


def test_a_sign_up_reaches_redis_through_the_trigger_and_the_lambda(
    aws: tuple[Aws, dict[str, str]], shared: Shared, signing_up: Any
) -> None:
    its, outputs = aws
    strange = 'O\'Neill "7" \\ 佐藤'
    run(signing_up, INSERT, strange, "Zoë 👩🏽‍🚀")
    signing_up.commit()

    ((arn, payload),) = run(signing_up, "SELECT arn, payload FROM told")
    its.lambda_.invoke(FunctionName=arn, InvocationType="Event", Payload=payload.encode())

    eventually(lambda: strange in shared.names(), "the name did not come")
    assert shared.names()[strange] == "Zoë 👩🏽‍🚀"
    assert arn == outputs["NamesLambdaArn"]
    assert json.loads(payload) == {"user_id": strange}  # no name, which an invocation would carry about
    assert shared.front.handshakes > 0


def test_a_sign_up_that_is_not_committed_yet_is_waited_for(
    aws: tuple[Aws, dict[str, str]], shared: Shared, signing_up: Any
) -> None:
    its, _ = aws
    run(signing_up, INSERT, "36", "Ada")
    ((arn, payload),) = run(signing_up, "SELECT arn, payload FROM told")

    its.lambda_.invoke(FunctionName=arn, InvocationType="Event", Payload=payload.encode())
    time.sleep(1)
    signing_up.commit()

    assert eventually(lambda: shared.names().get("36"), "the name did not come") == "Ada"


def test_a_new_name_is_told_a_new_price_is_not_and_a_bulk_load_may_be_silent(signing_up: Any) -> None:
    run(signing_up, INSERT, "37", "Ada")
    run(signing_up, "UPDATE customers SET price_per_click = 0.5 WHERE customer_id = '37'")
    run(signing_up, "UPDATE customers SET name = 'Grace' WHERE customer_id = '37'")
    run(signing_up, "SET @clickstream_bulk = 1")
    run(signing_up, INSERT, "38", "Mary")

    assert [json.loads(payload)["user_id"] for (payload,) in run(signing_up, "SELECT payload FROM told")] == [
        "37",
        "37",
    ]


def test_a_sign_up_succeeds_though_the_lambda_cannot_be_called(signing_up: Any) -> None:
    run(signing_up, INSERT, "nobody-listens", "Ada")
    signing_up.commit()

    assert run(signing_up, "SELECT name FROM customers") == [("Ada",)]


def test_the_schedule_copies_everybodys_names(aws: tuple[Aws, dict[str, str]], shared: Shared, signing_up: Any) -> None:
    its, _ = aws
    rule = its.schedule()
    run(signing_up, "SET @clickstream_bulk = 1")
    everybody = {str(number): f"User {number}" for number in range(1500)}
    with signing_up.cursor() as cursor:
        cursor.executemany(INSERT, list(everybody.items()))
    signing_up.commit()

    its.events.enable_rule(Name=rule["Name"])
    eventually(lambda: len(shared.names()) >= 1500, "the schedule did not come round")

    assert shared.names() == everybody
    assert rule["ScheduleExpression"] == "cron(* * * * ? *)"
    assert run(signing_up, "SELECT * FROM told") == []


# Taken away


def test_deleted_stacks_leave_nothing_behind(lambda_zips: dict[str, Path], shared: Shared, tmp_path: Path) -> None:
    with S3Server(tmp_path / "aws") as server:
        its, _ = deployed(Aws(server), lambda_zips, shared)
        assert its.alarms(CLICKS)

        for part in ("scaling", "lambdas"):
            its.cloudformation.delete_stack(StackName=f"clickstream-test-{part}")
        eventually(lambda: not its.lambda_.list_functions()["Functions"], "the functions are still there")

        assert its.alarms(CLICKS) == {}
        assert its.lambda_.list_event_source_mappings()["EventSourceMappings"] == []
        assert its.sns.list_topics()["Topics"] == []
        assert its.sqs.list_queues().get("QueueUrls", []) == []
        assert its.events.list_rules()["Rules"] == []
        assert its.iam.list_roles()["Roles"] == []
        assert its.logs.describe_log_groups()["logGroups"] == []
