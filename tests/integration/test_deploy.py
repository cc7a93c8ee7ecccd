"""Environments that come, change, fail, go on and go again on a stand-in for AWS, read back from its services."""

import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.servers import PROJECT, REGION, Localemu
from clickstream.errors import ClickstreamError, Refused
from deploy import plan
from deploy.artifacts import Artifacts
from deploy.aws import Clients
from deploy.config import Environment
from deploy.derived import TEMPLATES
from deploy.down import Left, Loss, Teardown, leftovers
from deploy.execute import LARGEST_BODY, Deployment
from deploy.parts import ENVIRONMENT_TAG, PART_TAG
from deploy.stacks import Stacks
from tests.servers import S3Server
from tests.told import Told

REAL = plan.bodies(TEMPLATES)
PATIENCE = 60.0  # seconds; a bound, not a claim


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("aws")) as server:
        yield server


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An environment that no other test has."""
    number = request.session.items.index(request.node)
    return f"t{number}"


@dataclass
class World:
    """One environment at the stand-in, with templates of its own or the real ones."""

    server: S3Server | Localemu
    name: str
    folder: Path
    told: Told = field(default_factory=Told)

    def __post_init__(self) -> None:
        self.clients = Clients(REGION, self.server.endpoint)

    def deployment(
        self,
        bodies: Mapping[str, str],
        parameters: Mapping[str, Mapping[str, str]] | None = None,
        *,
        parts: tuple[str, ...] | None = None,
        job: bytes = b"a job",
        delete_data: bool = False,
    ) -> Deployment:
        environment = Environment(self.name, Path("t.yaml"), REGION, parameters=parameters or {})
        stacks = Stacks(environment, self.clients, self.told, poll=0.05)
        builders = {"JobKey": lambda to: to.write_bytes(job)}
        artifacts = Artifacts(self.folder / "dist", builders, self.told)
        ours = parts or tuple(part for part in plan.NAMES if part in bodies)
        return Deployment(stacks, ours, bodies, artifacts, delete_data)

    def up(self, bodies: Mapping[str, str], parameters: Any = None, **options: Any) -> dict[str, str]:
        """Bring it up; return what was done to each part."""
        steps = self.deployment(bodies, parameters, **options).up()
        return {step.wanted.part: "nothing" if step.nothing else step.action for step in steps}

    def teardown(self, parts: tuple[str, ...] | None = None) -> Teardown:
        return Teardown(self.deployment({}).stacks, parts)

    def status(self, part: str) -> str:
        return self.deployment({}).stacks.there()[part].status


@pytest.fixture
def world(aws: S3Server, name: str, tmp_path: Path) -> World:
    return World(aws, name, tmp_path)


BUCKET = """
Parameters: {Environment: {Type: String}, Days: {Type: Number, Default: 1}}
Resources:
  Lake:
    Type: AWS::S3::Bucket
    Properties:
      BucketName: !Sub clickstream-${Environment}-lake
      VersioningConfiguration: {Status: Enabled}
Outputs: {LakeBucket: {Value: !Ref Lake}}
"""
QUEUE = """
Parameters: {Environment: {Type: String}, LakeBucket: {Type: String}}
Resources:
  Queue:
    Type: AWS::SQS::Queue
    Properties: {QueueName: !Sub "${LakeBucket}-queue"}
"""
TOPIC = """
Parameters: {Environment: {Type: String}}
Resources:
  Topic: {Type: AWS::SNS::Topic, Properties: {TopicName: !Sub "clickstream-${Environment}-topic"}}
"""
TOLD = """
Parameters: {Environment: {Type: String}, ArtifactsBucket: {Type: String}, JobKey: {Type: String}}
Resources:
  Says: {Type: AWS::SSM::Parameter, Properties: {Name: !Sub "/${Environment}", Type: String, Value: !Ref JobKey}}
"""
BROKEN = TOPIC + "  Broken: {Type: AWS::Made::Up, DependsOn: Topic}\n"


def test_the_real_artifacts_and_streams_are_as_their_templates_say(world: World) -> None:
    bodies = {part: REAL[part] for part in ("artifacts", "streams")}

    done = world.up(bodies, {"streams": {"ClicksShards": "3"}})

    s3, kinesis = world.clients("s3"), world.clients("kinesis")
    there = world.deployment(bodies).stacks.there()
    bucket = there["artifacts"].outputs["ArtifactsBucket"]
    [rule] = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    clicks = kinesis.describe_stream_summary(StreamName=there["streams"].outputs["ClicksStreamName"])
    assert done == {"artifacts": "create", "streams": "create"}
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert clicks["StreamDescriptionSummary"]["OpenShardCount"] == 3
    assert there["streams"].tags == {ENVIRONMENT_TAG: world.name, PART_TAG: "streams"}


def test_after_up_the_plan_has_no_changes_and_a_changed_parameter_is_one(world: World) -> None:
    bodies = {part: REAL[part] for part in ("artifacts", "streams")}
    world.up(bodies)

    again = world.deployment(bodies).plan()
    changed = world.deployment(bodies, {"streams": {"OffersShards": "2"}}).plan()
    offers = world.deployment(bodies).stacks.there()["streams"].outputs["OffersStreamName"]
    shards_after_plan = _shards(world, offers)
    done = world.up(bodies, {"streams": {"OffersShards": "2"}})

    assert [step.action for step in again] == ["keep", "keep"]
    assert [(change.name, change.type) for change in changed[1].changes or ()] == [("Offers", "AWS::Kinesis::Stream")]
    assert shards_after_plan == 1
    assert done == {"artifacts": "nothing", "streams": "update"}
    assert _shards(world, offers) == 2
    assert not world.clients("cloudformation").list_change_sets(StackName=f"clickstream-{world.name}-artifacts")[
        "Summaries"
    ]


def _shards(world: World, stream: str) -> int:
    summary = world.clients("kinesis").describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    return int(summary["OpenShardCount"])


def test_a_template_that_only_reads_differently_comes_to_no_changes(world: World) -> None:
    world.up({"archive": BUCKET})

    [step] = world.deployment({"archive": f"# a comment\n{BUCKET}"}).plan()

    assert step.action == "update"
    assert step.nothing


def test_a_part_gets_the_outputs_of_earlier_ones_though_they_are_made_by_the_same_command(world: World) -> None:
    bodies = {"archive": BUCKET, "lambdas": QUEUE}

    planned = world.deployment(bodies).plan()
    world.up(bodies)

    assert [step.action for step in planned] == ["create", "create"]
    queues = world.clients("sqs").list_queues(QueueNamePrefix=f"clickstream-{world.name}-")["QueueUrls"]
    assert [url.rpartition("/")[2] for url in queues] == [f"clickstream-{world.name}-lake-queue"]


def test_a_part_that_comes_to_want_a_new_parts_output_is_planned_and_brought_up(world: World) -> None:
    world.up({"lambdas": TOPIC})
    bodies = {"archive": BUCKET, "lambdas": QUEUE}

    planned = world.deployment(bodies).plan()
    done = world.up(bodies)

    assert [(step.action, step.changes is None) for step in planned] == [("create", False), ("update", True)]
    assert done == {"archive": "create", "lambdas": "update"}
    assert world.clients("sqs").list_queues(QueueNamePrefix=f"clickstream-{world.name}-lake-queue")["QueueUrls"]


def test_a_stack_of_somebody_else_with_a_name_like_ours_is_left_alone(world: World) -> None:
    theirs = f"clickstream-{world.name}-extras"
    world.clients("cloudformation").create_stack(
        StackName=theirs,
        TemplateBody=TOPIC,
        Parameters=[{"ParameterKey": "Environment", "ParameterValue": f"of-others-{world.name}"}],
    )
    world.up({"archive": BUCKET})

    world.teardown().down()

    assert world.deployment({}).stacks.describe(theirs) is not None
    assert Left("stack", theirs) in world.teardown().left(patience=0)


def test_zips_are_uploaded_under_their_hash_and_another_zip_is_a_change(world: World) -> None:
    bodies = {"artifacts": REAL["artifacts"], "job": TOLD}

    first = world.up(bodies, job=b"one")
    same = world.up(bodies, job=b"one")
    second = world.up(bodies, job=b"two")

    bucket = world.deployment(bodies).stacks.there()["artifacts"].outputs["ArtifactsBucket"]
    listed = world.clients("s3").list_objects_v2(Bucket=bucket)["Contents"]
    contents = {
        one["Key"]: world.clients("s3").get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in listed
    }
    says = world.clients("ssm").get_parameter(Name=f"/{world.name}")["Parameter"]["Value"]
    assert (first["job"], same["job"], second["job"]) == ("create", "nothing", "update")
    assert sorted(contents.values()) == [b"one", b"two"]
    assert contents[says] == b"two"
    assert all(key.startswith("code/job-") and key.endswith(".zip") for key in contents)


def test_a_template_too_large_to_be_sent_along_goes_by_way_of_the_bucket(world: World) -> None:
    large = TOPIC + "# " + "x" * LARGEST_BODY + "\n"

    with pytest.raises(Refused, match="deploy up --only artifacts"):
        world.up({"watch": large})
    world.up({"artifacts": REAL["artifacts"], "watch": large})
    again = world.deployment({"artifacts": REAL["artifacts"], "watch": large}).plan()

    assert world.status("watch") == "CREATE_COMPLETE"
    assert [step.action for step in again] == ["keep", "keep"]


def test_a_failure_says_what_and_why_and_once_mended_the_same_command_goes_on(world: World) -> None:
    with pytest.raises(Refused) as said:
        world.up({"archive": BUCKET, "watch": BROKEN})
    left = world.status("watch")
    done = world.up({"archive": BUCKET, "watch": TOPIC})

    assert f"clickstream-{world.name}-watch: Broken (AWS::Made::Up) failed, and AWS says: " in str(said.value)
    assert "Next: " in str(said.value)
    assert left == "ROLLBACK_COMPLETE"
    assert done == {"archive": "nothing", "watch": "recreate"}
    assert world.status("watch") == "CREATE_COMPLETE"


def test_an_update_that_fails_is_rolled_back_and_can_be_made_again(world: World) -> None:
    world.up({"watch": TOPIC})

    with pytest.raises(Refused, match=r"Broken .* failed"):
        world.up({"watch": BROKEN})
    left = world.status("watch")
    second = TOPIC + "  Queue: {Type: AWS::SQS::Queue, Properties: {QueueName: !Sub 'clickstream-${Environment}-q'}}\n"
    done = world.up({"watch": second})

    assert left == "UPDATE_ROLLBACK_COMPLETE"
    assert done == {"watch": "update"}
    assert world.clients("sqs").list_queues(QueueNamePrefix=f"clickstream-{world.name}-q")["QueueUrls"]


SLOW_LAMBDA = """
import json, os, time, urllib.request
def handler(event, context):
    until = event["ResourceProperties"]["Until"]
    while event["RequestType"] != "Delete" and not os.path.exists(until):
        time.sleep(0.05)
    answer = {"Status": "SUCCESS", "PhysicalResourceId": "slow", "StackId": event["StackId"],
              "RequestId": event["RequestId"], "LogicalResourceId": event["LogicalResourceId"]}
    request = urllib.request.Request(event["ResponseURL"], json.dumps(answer).encode(), method="PUT")
    urllib.request.urlopen(request)
"""
SLOW = """
Parameters: {Environment: {Type: String}, Function: {Type: String}, Until: {Type: String}}
Resources:
  Slow: {Type: "Custom::Slow", Properties: {ServiceToken: !Ref Function, Until: !Ref Until}}
"""


@pytest.fixture
def slow(world: World, tmp_path: Path) -> Mapping[str, str]:
    """Parameters of a stack that takes until a file is there."""
    packed = tmp_path / "slow.zip"
    with zipfile.ZipFile(packed, "w") as code:
        code.writestr("slow.py", SLOW_LAMBDA)
    made = world.clients("lambda").create_function(
        FunctionName=f"slow-{world.name}",
        Runtime="python3.11",
        Handler="slow.handler",
        Role="arn:aws:iam::000000000000:role/slow",
        Code={"ZipFile": packed.read_bytes()},
        Timeout=60,
    )
    return {"Function": made["FunctionArn"], "Until": str(tmp_path / "go-on")}


def test_what_is_stopped_half_way_goes_on_at_aws_and_the_same_command_takes_it_up(
    world: World, slow: Mapping[str, str]
) -> None:
    bodies = {"archive": BUCKET, "watch": SLOW}
    world.told.interrupt_at = "Slow"

    with pytest.raises(KeyboardInterrupt):
        world.up(bodies, {"watch": slow})
    between = world.status("watch")
    threading.Timer(0.5, Path(slow["Until"]).touch).start()
    done = world.up(bodies, {"watch": slow})

    assert between == "CREATE_IN_PROGRESS"
    assert "watch: going on with what is under way" in world.told.lines
    assert done == {"archive": "nothing", "watch": "nothing"}
    assert world.status("watch") == "CREATE_COMPLETE"


def test_a_plan_while_aws_is_at_work_says_so(world: World, slow: Mapping[str, str]) -> None:
    world.told.interrupt_at = "Slow"
    with pytest.raises(KeyboardInterrupt):
        world.up({"watch": SLOW}, {"watch": slow})

    [step] = world.deployment({"watch": SLOW}, {"watch": slow}).plan()
    Path(slow["Until"]).touch()
    _until(lambda: world.status("watch") == "CREATE_COMPLETE")

    assert (step.action, step.why) == ("wait", "AWS is at work on it: CREATE_IN_PROGRESS")


def test_removing_a_bucket_from_its_template_is_refused_unless_data_may_go(world: World) -> None:
    world.up({"archive": BUCKET})
    without = TOPIC

    with pytest.raises(Refused, match=r"Lake \(AWS::S3::Bucket\) of archive"):
        world.up({"archive": without})
    still = [one["Name"] for one in world.clients("s3").list_buckets()["Buckets"]]
    done = world.up({"archive": without}, delete_data=True)

    assert f"clickstream-{world.name}-lake" in still
    assert done == {"archive": "update"}
    assert f"clickstream-{world.name}-lake" not in [
        one["Name"] for one in world.clients("s3").list_buckets()["Buckets"]
    ]


def test_down_says_what_would_be_lost_and_then_leaves_nothing_behind(world: World) -> None:
    bodies = {"artifacts": REAL["artifacts"], "streams": REAL["streams"], "archive": BUCKET}
    world.up(bodies)
    s3, logs, lake = world.clients("s3"), world.clients("logs"), f"clickstream-{world.name}-lake"
    with ThreadPoolExecutor() as pool:  # more than one deletion takes
        list(pool.map(lambda n: s3.put_object(Bucket=lake, Key=f"enriched/{n % 1_003}", Body=b"x"), range(1_005)))
    s3.delete_object(Bucket=lake, Key="enriched/0")
    s3.create_multipart_upload(Bucket=lake, Key="enriched/unfinished")
    for group in (f"/aws/lambda/clickstream-{world.name}-names", f"/aws/lambda/clickstream-{world.name}x-names"):
        logs.create_log_group(logGroupName=group)

    losses = world.teardown().losses()
    world.teardown().down()

    assert losses == [
        Loss("archive", lake, "1,005 objects"),
        Loss("streams", f"clickstream-{world.name}-clicks", "the records of its retention time"),
        Loss("streams", f"clickstream-{world.name}-offers", "the records of its retention time"),
    ]
    assert world.teardown().left(patience=PATIENCE) == []
    mine = f"clickstream-{world.name}-"
    assert not [one for one in s3.list_buckets()["Buckets"] if one["Name"].startswith(mine)]
    assert not [one for one in world.clients("kinesis").list_streams()["StreamNames"] if one.startswith(mine)]
    assert not world.deployment({}).stacks.there()
    groups = [one["logGroupName"] for one in logs.describe_log_groups()["logGroups"]]
    assert not [one for one in groups if mine in one]
    assert f"/aws/lambda/clickstream-{world.name}x-names" in groups


def test_down_deletes_the_snapshot_that_a_replaced_database_left_and_nobody_elses(world: World) -> None:
    rds, mine = world.clients("rds"), f"clickstream-{world.name}"
    for cluster in (mine, f"{mine}x"):
        rds.create_db_cluster(DBClusterIdentifier=cluster, Engine="aurora-mysql")
        rds.create_db_cluster_snapshot(
            DBClusterSnapshotIdentifier=f"{cluster}-data-snapshot-database", DBClusterIdentifier=cluster
        )
    rds.delete_db_cluster(DBClusterIdentifier=mine, SkipFinalSnapshot=True)

    world.teardown().down()

    left = [one["DBClusterSnapshotIdentifier"] for one in rds.describe_db_cluster_snapshots()["DBClusterSnapshots"]]
    assert f"{mine}-data-snapshot-database" not in left
    assert f"{mine}x-data-snapshot-database" in left


def test_an_empty_bucket_is_no_loss_and_zips_are_none(world: World) -> None:
    bodies = {"artifacts": REAL["artifacts"], "archive": BUCKET}
    world.up(bodies)
    bucket = world.deployment(bodies).stacks.there()["artifacts"].outputs["ArtifactsBucket"]
    world.clients("s3").put_object(Bucket=bucket, Key="code/job.zip", Body=b"x")

    assert world.teardown().losses() == []


def test_down_of_one_part_leaves_the_others(world: World) -> None:
    world.up({"archive": BUCKET, "watch": TOPIC})

    world.teardown(("watch",)).down()

    assert list(world.deployment({}).stacks.there()) == ["archive"]


def test_down_waits_for_what_is_under_way(world: World, slow: Mapping[str, str]) -> None:
    world.told.interrupt_at = "Slow"
    with pytest.raises(KeyboardInterrupt):
        world.up({"watch": SLOW}, {"watch": slow})
    threading.Timer(0.5, Path(slow["Until"]).touch).start()

    world.teardown().down()

    assert world.teardown().left(patience=PATIENCE) == []


def test_what_somebody_made_beside_the_stacks_is_found_by_its_name(world: World) -> None:
    world.clients("sqs").create_queue(QueueName=f"clickstream-{world.name}-stray")
    world.clients("s3").create_bucket(Bucket=f"clickstream-{world.name}x-of-another-environment")

    assert leftovers(world.clients, world.name) == [Left("queue", f"clickstream-{world.name}-stray")]
    assert world.teardown().left(patience=0) == [Left("queue", f"clickstream-{world.name}-stray")]


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def clickstream(*arguments: str, endpoint: str, code: int = 0) -> str:
    """Type a command; return all that it printed, and the error's sentence."""
    done = CliRunner().invoke(app, list(arguments), env={"AWS_ENDPOINT_URL": endpoint})
    error = str(done.exception) if isinstance(done.exception, ClickstreamError) else ""
    assert done.exit_code == code, f"exit {done.exit_code}\n{done.output[-3000:]}\n{done.exception!r}"
    return f"{done.output}\n{error}"


def test_a_person_plans_brings_up_looks_and_takes_away(world: World, tmp_path: Path) -> None:
    file = tmp_path / f"{world.name}.yaml"
    file.write_text(f"region: {REGION}\nparameters: {{streams: {{ClicksShards: 2}}}}\n")
    these = ("--environment", str(file), "--only", "artifacts,streams")
    whole = ("--environment", str(file))

    planned = clickstream("deploy", "plan", *these, "--events-per-second", "1000", endpoint=world.server.endpoint)
    unasked = clickstream("deploy", "up", *these, endpoint=world.server.endpoint, code=1)
    up = clickstream("deploy", "up", *these, "--yes", endpoint=world.server.endpoint)
    again = clickstream("deploy", "up", *these, endpoint=world.server.endpoint)
    status = clickstream("deploy", "status", *whole, endpoint=world.server.endpoint)
    outputs = json.loads(clickstream("deploy", "outputs", *whole, "--json", endpoint=world.server.endpoint))
    refused = clickstream("deploy", "down", *whole, endpoint=world.server.endpoint, code=1)
    down = clickstream("deploy", "down", *whole, "--delete-data", "--yes", endpoint=world.server.endpoint)

    assert "+ Clicks  AWS::Kinesis::Stream" in planned
    assert "PUT units" in planned
    assert "list prices of us-east-1" in planned
    assert "--yes" in unasked
    assert "✓ Clicks  AWS::Kinesis::Stream  create complete" in up
    assert "nothing to do" in again
    assert "CREATE_COMPLETE" in status
    assert outputs["ClicksStreamName"] == f"clickstream-{world.name}-clicks"
    assert "--delete-data" in refused
    assert f"clickstream-{world.name}-offers" in refused
    assert "nothing is left" in down
    assert leftovers(world.clients, world.name) == []


def test_what_is_not_there_is_said_with_the_command_that_makes_it(world: World, tmp_path: Path) -> None:
    file = tmp_path / f"{world.name}.yaml"
    file.write_text(f"region: {REGION}\n")
    of = ("--environment", str(file))

    assert "deploy up" in clickstream("deploy", "status", *of, endpoint=world.server.endpoint)
    assert "deploy up" in clickstream("deploy", "smoke", *of, endpoint=world.server.endpoint, code=1)
    assert "deploy up" in clickstream("deploy", "job", "stop", *of, endpoint=world.server.endpoint, code=1)
    file.write_text(f"region: {REGION}\naccount: '999999999999'\n")
    wrong = clickstream("deploy", "plan", *of, endpoint=world.server.endpoint, code=1)
    assert "999999999999" in wrong
    assert "AWS_PROFILE" in wrong


def test_without_credentials_the_next_step_is_to_get_some_and_no_traceback_is_shown() -> None:
    nobody = {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
    }

    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "deploy", "plan", "--only", "streams"],
        cwd=PROJECT,
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | nobody,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "no AWS credentials" in done.stderr
    assert "aws configure" in done.stderr
    assert "Traceback" not in done.stderr
