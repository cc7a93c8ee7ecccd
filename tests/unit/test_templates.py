"""What holds for every CloudFormation template, whoever wrote it."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from cfnlint.api import lint_file
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from clickstream.schema import PARTITION
from clickstream.settings import read_settings
from connectors import users
from connectors.lake import partition_values
from tests.templates import DECIDED, FILES, FOLDER, OPTIONAL, ORDER, Rendered, read, walk

ALL = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)

UNNAMEABLE = {
    "cloudwatch:GetMetricData": "metrics are no resources",
    "cloudwatch:PutMetricData": "metrics are no resources; a condition names the namespace",
    "ec2:AssignPrivateIpAddresses": "Lambda: of an interface that it has yet to make",
    "ec2:CreateNetworkInterface": "Lambda: likewise",
    "ec2:DeleteNetworkInterface": "Lambda: likewise",
    "ec2:DescribeDhcpOptions": "EC2's Describe actions take no resource",
    "ec2:DescribeNetworkInterfaces": "EC2's Describe actions take no resource",
    "ec2:DescribeSecurityGroups": "EC2's Describe actions take no resource",
    "ec2:DescribeSubnets": "EC2's Describe actions take no resource",
    "ec2:DescribeVpcs": "EC2's Describe actions take no resource",
    "ec2:UnassignPrivateIpAddresses": "Lambda: of an interface that it has yet to make",
    "glue:GetSecurityConfiguration": "security configurations are no resources to IAM",
    "kinesis:DescribeLimits": "limits are those of the account",
    "xray:PutTelemetryRecords": "traces are no resources",
    "xray:PutTraceSegments": "traces are no resources",
}
"""Actions for which AWS takes no other resource than `*`, by its Service Authorization Reference."""

MANAGED = {
    "service-role/AmazonAPIGatewayPushToCloudWatchLogs": "API Gateway asks for this very one on a region's role",
}
"""Policies of AWS' own, which are broader than ours would be."""

OF_A_RESOURCE = {"AWS::KMS::Key", "AWS::EC2::VPCEndpoint"}
"""Resources with a policy in which `*` is themselves, or narrows what IAM allows."""

NAMED = {
    "AWS::Athena::WorkGroup": "Name",
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::ElastiCache::ReplicationGroup": "ReplicationGroupId",
    "AWS::Kinesis::Stream": "Name",
    "AWS::KinesisAnalyticsV2::Application": "ApplicationName",
    "AWS::KinesisFirehose::DeliveryStream": "DeliveryStreamName",
    "AWS::KMS::Alias": "AliasName",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::RDS::DBCluster": "DBClusterIdentifier",
    "AWS::RDS::DBInstance": "DBInstanceIdentifier",
    "AWS::RedshiftServerless::Namespace": "NamespaceName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::SecretsManager::Secret": "Name",
    "AWS::SNS::Topic": "TopicName",
    "AWS::SQS::Queue": "QueueName",
}
HOLDS = {
    kind for kind in NAMED if kind not in ("AWS::Lambda::Function", "AWS::KMS::Alias", "AWS::CloudWatch::Dashboard")
}


def resources(file: Path) -> dict[str, dict[str, Any]]:
    return Rendered(read(file)).resources()


def of_kind(kind: str) -> list[Any]:
    """Every resource of a kind in any template, as test parameters."""
    return [
        pytest.param(file, name, id=f"{file.stem}-{name}")
        for file in FILES
        for name, said in read(file)["Resources"].items()
        if said["Type"] == kind
    ]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what identities are allowed, with the logical id of who says so."""
    for name, said in resources(file).items():
        if said["Type"] not in OF_A_RESOURCE:
            for _, value in walk(said["Properties"], (name,)):
                if isinstance(value, dict) and value.get("Effect") == "Allow" and "Resource" in value:
                    yield name, value


@ALL
def test_cfn_lint_has_nothing_to_say(file: Path) -> None:
    assert [str(match) for match in lint_file(file)] == []


@ALL
def test_what_a_check_is_not_asked_about_has_a_reason(file: Path) -> None:
    for path, value in walk(read(file)):
        if path[-2:] == ("checkov", "skip"):
            assert all(len(skipped["comment"]) > 20 for skipped in value), path
    for line in re.findall(r"^.*ignore_checks.*$", file.read_text(), re.MULTILINE):
        assert re.search(r"# \w+", line), f"{line.strip()} lacks its reason, as a comment on the same line"


def test_what_no_template_is_asked_by_checkov_has_a_reason() -> None:
    config = (FOLDER.parent / "checkov.yaml").read_text()

    skipped = yaml.safe_load(config)["skip-check"]

    for check in skipped:
        assert re.search(rf"^  # .+\n  - {check}$", config, re.MULTILINE), f"{check} lacks its reason, above it"


def too_broad(statement: dict[str, Any]) -> str | None:
    """Say what a statement allows beyond what it could name."""
    actions = set(listed(statement["Action"]))
    if whole := {action for action in actions if action == "*" or action.endswith(":*")}:
        return f"all of {whole}"
    everything = (one for one in listed(statement["Resource"]) if re.fullmatch(_EVERYTHING, str(one)))
    if next(everything, None) and (nameable := actions - set(UNNAMEABLE)):
        return f"{nameable} on resources that it could name"
    return None


_EVERYTHING = r"\*|arn:[^:]*:[^:]*:[^:]*:[^:]*:\*"


@ALL
def test_no_policy_allows_more_than_it_can_name(file: Path) -> None:
    for name, statement in statements(file):
        assert too_broad(statement) is None, f"{name} may do {too_broad(statement)}"


@pytest.mark.parametrize(
    ("actions", "resource"),
    [
        ("*", "arn:aws:s3:::lake/*"),
        ("s3:*", "arn:aws:s3:::lake/*"),
        ("s3:GetObject", "*"),
        ("s3:GetObject", "arn:aws:s3:::*"),
        (["ec2:DescribeVpcs", "kinesis:PutRecord"], ["*"]),
        ("sqs:SendMessage", ["arn:aws:sqs:eu-central-1:123456789012:queue", "arn:aws:sqs:eu-central-1:123456789012:*"]),
    ],
)
def test_what_a_policy_may_not_say_is_noticed(actions: Any, resource: Any) -> None:
    assert too_broad({"Effect": "Allow", "Action": actions, "Resource": resource})


@ALL
def test_a_role_has_policies_of_our_own(file: Path) -> None:
    for name, said in resources(file).items():
        for policy in said["Properties"].get("ManagedPolicyArns", []):
            assert policy.partition(":policy/")[2] in MANAGED, f"{name} has {policy}"


@ALL
def test_a_role_is_taken_by_a_service_of_this_account_alone(file: Path) -> None:
    for name, said in resources(file).items():
        for statement in said["Properties"].get("AssumeRolePolicyDocument", {}).get("Statement", []):
            assert set(statement["Principal"]) == {"Service"}, name


@pytest.mark.parametrize(("file", "name"), of_kind("AWS::S3::Bucket"))
def test_a_bucket_is_private_encrypted_and_reached_by_tls(file: Path, name: str) -> None:
    bucket = resources(file)[name]["Properties"]
    policies = [
        statement
        for other in resources(file).values()
        if other["Type"] == "AWS::S3::BucketPolicy" and other["Properties"]["Bucket"] == f"{name.lower()}-0123"
        for statement in other["Properties"]["PolicyDocument"]["Statement"]
    ]

    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert any(
        policy["Effect"] == "Deny" and policy["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for policy in policies
    )
    assert any("AbortIncompleteMultipartUpload" in rule for rule in bucket["LifecycleConfiguration"]["Rules"])


@pytest.mark.parametrize(
    ("kind", "encrypted"),
    [
        ("AWS::Kinesis::Stream", lambda said: said["StreamEncryption"]["EncryptionType"] == "KMS"),
        ("AWS::RDS::DBCluster", lambda said: said["StorageEncrypted"] is True),
        ("AWS::RDS::DBInstance", lambda said: said["PubliclyAccessible"] is False),
        ("AWS::ElastiCache::ReplicationGroup", lambda said: said["AtRestEncryptionEnabled"] is True),
        ("AWS::ElastiCache::ReplicationGroup", lambda said: said["TransitEncryptionMode"] == "required"),
        ("AWS::ElastiCache::ReplicationGroup", lambda said: said["AuthToken"].startswith("{{resolve:secretsmanager:")),
        ("AWS::KinesisFirehose::DeliveryStream", lambda said: "KMSEncryptionConfig" in str(said)),
        ("AWS::SQS::Queue", lambda said: said.get("SqsManagedSseEnabled") is True or "KmsMasterKeyId" in said),
        ("AWS::SNS::Topic", lambda said: "KmsMasterKeyId" in said),
        ("AWS::Athena::WorkGroup", lambda said: "SSE_KMS" in str(said["WorkGroupConfiguration"])),
        ("AWS::RedshiftServerless::Namespace", lambda said: "KmsKeyId" in said and said["ManageAdminPassword"] is True),
        ("AWS::RedshiftServerless::Workgroup", lambda said: said["PubliclyAccessible"] is False),
        ("AWS::DynamoDB::Table", lambda said: said["SSESpecification"]["SSEEnabled"] is True),
    ],
)
def test_whatever_keeps_data_is_encrypted_and_private(kind: str, encrypted: Any) -> None:
    for parameter in of_kind(kind):
        file, name = parameter.values
        assert name not in resources(file) or encrypted(resources(file)[name]["Properties"]), f"{name} in {file.stem}"


@ALL
def test_no_secret_is_in_a_default_or_a_property(file: Path) -> None:
    secret = re.compile(r"(password|token|secret|secretstring)$", re.IGNORECASE)
    for name, said in read(file).get("Parameters", {}).items():
        assert not (secret.search(name) and said.get("Default")), f"{name} has a default"
    for path, value in walk(read(file)["Resources"]):
        if path and isinstance(value, str) and secret.search(str(path[-1])) and path[-2] != "PropertyMap":
            assert value.startswith("{{resolve:secretsmanager:"), f"{path} is written out"


@ALL
def test_what_keeps_something_is_called_after_its_environment(file: Path) -> None:
    template = read(file)
    one, other = (Rendered(template, Environment=name).resources() for name in ("left", "right"))

    for name, said in one.items():
        if said["Type"] in NAMED:
            names = [side[name]["Properties"][NAMED[said["Type"]]] for side in (one, other)]
            assert names[0] != names[1], f"{name} would be called {names[0]} in every environment"
            assert re.search(r"(?<![a-z])left(?![a-z])", str(names[0])), name


@ALL
def test_what_keeps_something_says_what_becomes_of_it(file: Path) -> None:
    for name, said in read(file)["Resources"].items():
        if said["Type"] in HOLDS - {
            "AWS::Athena::WorkGroup",
            "AWS::KinesisFirehose::DeliveryStream",
            "AWS::SNS::Topic",
        }:
            assert said.get("DeletionPolicy") == "Delete", f"{name} would be left behind, or go without being asked"
            assert said.get("UpdateReplacePolicy") in ("Delete", "Snapshot"), name


def test_every_template_is_a_part() -> None:
    assert {file.stem for file in FILES} <= set(ORDER)


def test_every_parameter_is_an_earlier_output_or_has_a_value() -> None:
    known: dict[str, str] = {}
    for part in ORDER:
        if not (FOLDER / f"{part}.yaml").exists():
            known |= dict.fromkeys(AGREED.get(part, ()), part)
            continue
        template = read(FOLDER / f"{part}.yaml")
        for name, said in template["Parameters"].items():
            if "Default" not in said and name not in DECIDED:
                assert name in known, f"{part}: nobody says what {name} is"
                assert part in OPTIONAL or known[name] not in OPTIONAL, f"{part} needs {name}, which may be left out"
        for name in template.get("Outputs", {}):
            assert name not in known, f"{name} is an output of {known.get(name)} and of {part}"
            known[name] = part


AGREED = {
    "lambdas": ("NamesLambdaArn", "NamesLambdaName", "OffersLambdaName", "OffersDlqName"),
    "scaling": ("ScalingLambdaName", "ScalingTopicArn"),
    "front": ("ApiUrl", "ApiId", "ApiStage", "WebAclArn"),
}
"""What parts whose templates are not there yet will hand on."""


def test_each_part_knows_its_environment_by_a_name_that_fits() -> None:
    for file in FILES:
        said = read(file)["Parameters"]["Environment"]
        assert re.fullmatch(said["AllowedPattern"], "a-very-long1"), file.stem
        assert not re.fullmatch(said["AllowedPattern"], "Dev"), file.stem


def test_names_fit_for_the_longest_environment_and_region() -> None:
    for file in FILES:
        for name, said in Rendered(read(file), Environment="a-very-long1").resources().items():
            if said["Type"] == "AWS::S3::Bucket":
                called = said["Properties"]["BucketName"].replace("eu-central-1", "ap-southeast-1")
                assert len(called) <= 63, name
            if said["Type"] in ("AWS::ElastiCache::ReplicationGroup", "AWS::ElastiCache::SubnetGroup"):
                assert len(str(said["Properties"].get("ReplicationGroupId", ""))) <= 40, name


def test_the_job_is_told_settings_that_it_knows(tmp_path: Path) -> None:
    job = resources(FOLDER / "job.yaml")["Job"]["Properties"]["ApplicationConfiguration"]
    groups = job["EnvironmentProperties"]["PropertyGroups"]
    file = tmp_path / "application_properties.json"
    file.write_bytes(msgspec.json.encode(groups))

    settings = read_settings(file)

    assert settings.lake.root.startswith("s3://")
    assert not settings.lake.raw
    assert settings.redis.url.startswith("rediss://")
    assert settings.redis.password is not None
    assert settings.redis.password.startswith("arn:aws:secretsmanager:")
    assert groups[0] == {
        "PropertyGroupId": "kinesis.analytics.flink.run.options",
        "PropertyMap": {"python": "main.py", "jarfile": "lib/clickstream-flink.jar", "pyFiles": "dep/"},
    }


def test_unfinished_uploads_outlive_the_oldest_snapshot_that_may_be_restored() -> None:
    template = read(FOLDER / "archive.yaml")

    for days in template["Parameters"]["RestorableSnapshotDays"]["AllowedValues"]:
        lake = Rendered(template, RestorableSnapshotDays=days).resources()["Lake"]["Properties"]
        [kept] = [
            rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
            for rule in lake["LifecycleConfiguration"]["Rules"]
            if "AbortIncompleteMultipartUpload" in rule
        ]
        assert kept > int(days)


def test_firehose_writes_raw_json_by_the_hour_in_small_compressed_files() -> None:
    said = resources(FOLDER / "archive.yaml")["RawFirehose"]["Properties"]["ExtendedS3DestinationConfiguration"]

    assert said["BufferingHints"] == {"SizeInMBs": 3, "IntervalInSeconds": 60}
    assert said["CompressionFormat"] == "GZIP"
    assert said["CustomTimeZone"] == "UTC"
    assert said["Prefix"] == "year=!{timestamp:yyyy}/month=!{timestamp:MM}/day=!{timestamp:dd}/hour=!{timestamp:HH}/"
    assert said["ErrorOutputPrefix"].startswith("errors/")


def test_firehose_calls_an_hour_as_the_lake_does() -> None:
    arrival = datetime(2021, 7, 2, 9, 1, tzinfo=UTC)
    java = {"yyyy": "%Y", "MM": "%m", "dd": "%d", "HH": "%H"}  # Firehose takes the patterns of Java's DateTimeFormatter
    said = resources(FOLDER / "archive.yaml")["RawFirehose"]["Properties"]["ExtendedS3DestinationConfiguration"]

    folder = arrival.strftime(re.sub(r"!\{timestamp:(\w+)\}", lambda found: java[found[1]], said["Prefix"]))

    assert folder == "year=2021/month=07/day=02/hour=09/"
    assert list(partition_values(folder)) == [column.name for column in PARTITION]


def test_tables_are_where_their_writers_put_files() -> None:
    tables = {
        said["Properties"]["TableInput"]["Name"]: said["Properties"]["TableInput"]
        for said in resources(FOLDER / "catalog.yaml").values()
        if said["Type"] == "AWS::Glue::Table"
    }
    firehose = resources(FOLDER / "archive.yaml")
    hour = "year=${year}/month=${month}/day=${day}/hour=${hour}/"

    assert set(tables) == {"enriched", "flattened", "raw", "rejected", "suppressed", "offers"}
    for name, table in tables.items():
        folder = "" if name == "raw" else f"{name}/"
        bucket = "rawbucket-0123" if name == "raw" else "lakebucket-0123"
        assert table["StorageDescriptor"]["Location"] == f"s3://{bucket}/{folder}"
        assert table["Parameters"]["storage.location.template"] == f"s3://{bucket}/{folder}{hour}"
    for name, folder in {"RawFirehose": "", "OffersFirehose": "offers/"}.items():
        prefix = firehose[name]["Properties"]["ExtendedS3DestinationConfiguration"]["Prefix"]
        assert prefix.startswith(f"{folder}year=")


def test_the_dashboard_is_json_and_shows_every_alarm() -> None:
    watch = resources(FOLDER / "watch.yaml")

    board = json.loads(watch["Dashboard"]["Properties"]["DashboardBody"])

    [shown] = [one["properties"]["alarms"] for one in board["widgets"] if one["type"] == "alarm"]
    alarms = [name for name, said in watch.items() if said["Type"] == "AWS::CloudWatch::Alarm"]
    assert [arn.rpartition(":")[2] for arn in shown] == alarms
    for name, said in watch.items():
        if said["Type"] == "AWS::CloudWatch::Alarm":
            assert said["Properties"]["AlarmActions"], name


def test_the_table_of_customers_is_the_one_that_the_code_knows() -> None:
    written = (FOLDER.parent / "sql" / "customers.sql").read_text()
    ours = str(CreateTable(users._customers, if_not_exists=True).compile(dialect=mysql.dialect()))

    def words(sql: str) -> list[str]:
        return re.findall(r"\w+|[^\w\s=]", re.sub(r"^--.*$", "", sql, flags=re.MULTILINE))

    assert words(written) == words(ours)


def connections(way: str) -> set[tuple[str, str, int]]:
    """Return who may open a connection to whom, and on which port, by the Ingress or the Egress rules."""
    network = resources(FOLDER / "network.yaml")
    groups = {f"{name.lower()}-0123": name.removesuffix("SecurityGroup") for name in network}
    found = set()
    for name, said in network.items():
        rules = [said["Properties"]] if said["Type"] == f"AWS::EC2::SecurityGroup{way}" else []
        rules += [
            {**rule, "GroupId": f"{name.lower()}-0123"} for rule in said["Properties"].get(f"SecurityGroup{way}", [])
        ]
        for rule in rules:
            other = rule.get("SourceSecurityGroupId", rule.get("DestinationSecurityGroupId", rule.get("CidrIp")))
            ends = (groups.get(other, other), groups[rule["GroupId"]])
            assert rule["FromPort"] == rule["ToPort"], name
            found.add((*(ends if way == "Ingress" else ends[::-1]), rule["FromPort"]))
    return found


def test_in_the_vpc_only_those_talk_who_have_to() -> None:
    both = {
        ("Job", "Redis", 6379),
        ("Lambda", "Redis", 6379),
        ("Connector", "Redis", 6379),
        ("Lambda", "Database", 3306),
        ("Connector", "Database", 3306),
    }
    nowhere = {(who, "127.0.0.1/32", 1) for who in ("Redis", "Endpoint")}
    aws = {(who, "0.0.0.0/0", 443) for who in ("Job", "Lambda", "Connector")}

    assert connections("Ingress") == both | {("10.40.0.0/16", "Endpoint", 443)}
    assert connections("Egress") == both | aws | nowhere | {("Database", "Endpoint", 443)}


def test_without_a_nat_gateway_there_is_no_way_to_the_internet() -> None:
    template = read(FOLDER / "network.yaml")

    without = Rendered(template).resources().values()

    assert not {said["Type"] for said in without} & {
        "AWS::EC2::InternetGateway",
        "AWS::EC2::NatGateway",
        "AWS::EC2::Route",
    }
    assert Rendered(template).outputs()["InternetAccess"] == "false"
    assert Rendered(template, NatGateway="true").outputs()["InternetAccess"] == "true"


def test_the_services_that_are_asked_for_from_the_vpc_have_a_way_there() -> None:
    services = {
        said["Properties"]["ServiceName"].rpartition(".")[2]
        for said in resources(FOLDER / "network.yaml").values()
        if said["Type"] == "AWS::EC2::VPCEndpoint"
    }

    assert services == {"kinesis-streams", "s3", "logs", "monitoring", "secretsmanager", "glue", "sts", "lambda"}


@pytest.mark.parametrize(("allowed", "is_inside"), [("", False), ("shop.internal,10.1.0.0/16", True)])
def test_the_offers_lambda_is_in_the_vpc_if_its_webhook_may_be_private(allowed: str, is_inside: bool) -> None:
    found = Rendered(read(FOLDER / "lambdas.yaml"), OffersAllowPrivate=allowed).resources()
    names, offers = (found[f"{name}Lambda"]["Properties"] for name in ("Names", "Offers"))
    (policy,) = found["OffersRole"]["Properties"]["Policies"]
    may = {statement["Sid"] for statement in policy["PolicyDocument"]["Statement"]}

    assert offers.get("VpcConfig") == (names["VpcConfig"] if is_inside else None)
    assert may & {"NetworkInterfaces", "NotByTheCode"} == (
        {"NetworkInterfaces", "NotByTheCode"} if is_inside else set()
    )
    assert offers["Environment"]["Variables"]["WEBHOOK_ALLOW_PRIVATE"] == allowed


def test_whatever_may_go_wrong_has_an_alarm() -> None:
    watch = resources(FOLDER / "watch.yaml")
    alarms = json.dumps([said for said in watch.values() if said["Type"] == "AWS::CloudWatch::Alarm"])

    for metric in (
        *("fullRestarts", "numberOfFailedCheckpoints", "millisBehindLatest", "backPressuredTimeMsPerSecond", "uptime"),
        *("WriteProvisionedThroughputExceeded", "GetRecords.IteratorAgeMilliseconds", "Operator = 'rejected'"),
        *("Errors", "ApproximateNumberOfMessagesVisible", "DeliveryToS3.DataFreshness", "4XXError", "5XXError"),
    ):
        assert metric in alarms, metric


def test_what_is_known_by_its_name_is_called_so() -> None:
    everything = {(file.stem, name): said for file in FILES for name, said in resources(file).items()}
    [called] = [
        dimension["Value"]
        for dimension in everything["watch", "ApiServerErrors"]["Properties"]["Dimensions"]
        if dimension["Name"] == "ApiName"
    ]
    [policy] = everything["data", "DatabaseRole"]["Properties"]["Policies"]
    [statement] = policy["PolicyDocument"]["Statement"]

    for said in everything.values():
        if said["Type"] == "AWS::ApiGateway::RestApi":
            assert said["Properties"]["Name"] == called
    functions = {
        said["Properties"]["FunctionName"]
        for (part, _), said in everything.items()
        if part == "lambdas" and said["Type"] == "AWS::Lambda::Function"
    }
    assert not functions or statement["Resource"].rpartition(":")[2] in functions
