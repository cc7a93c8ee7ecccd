"""What CloudFormation is asked and answers where no stand-in does: requests that botocore itself has validated."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from clickstream.errors import Refused
from deploy import plan
from deploy.artifacts import Artifacts
from deploy.aws import Clients
from deploy.config import Environment
from deploy.down import Teardown, empty
from deploy.execute import Deployment
from deploy.stacks import Stacks
from tests.told import Told

DEV = Environment("dev", Path("dev.yaml"), "eu-central-1")
TAGS = [
    {"Key": "clickstream:environment", "Value": "dev"},
    {"Key": "clickstream:part", "Value": "streams"},
]
STACK = "clickstream-dev-streams"
STACK_ID = f"arn:aws:cloudformation:eu-central-1:000000000000:stack/{STACK}/1"
BODY = """
Parameters: {Environment: {Type: String}}
Resources: {Clicks: {Type: AWS::Kinesis::Stream}}
"""
SETTINGS: dict[str, Any] = {"region_name": "eu-central-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
MOMENT = datetime(2026, 11, 24, tzinfo=UTC)


class CloudFormation:
    """Its answers, in the order in which they will be asked for."""

    def __init__(self, stub: Stubber) -> None:
        self._stub = stub

    def answers(self, operation: str, answer: dict[str, Any], **request: Any) -> None:
        self._stub.add_response(operation, answer, request)

    def has(self, status: str, *, why: str = "", name: str | None = STACK) -> None:
        """Answer a question for one stack, or with no name for all."""
        self.answers("describe_stacks", {"Stacks": [self._stack(status, why)]}, **({"StackName": name} if name else {}))
        if name is None:
            self.answers("get_template", {"TemplateBody": "old"}, StackName=STACK, TemplateStage="Original")

    def says(self, *events: tuple[str, str, str]) -> None:
        """Answer with all events so far, newest first, as it does."""
        found = [
            {
                "StackId": STACK_ID,
                "StackName": STACK,
                "EventId": f"{n}",
                "LogicalResourceId": name,
                "PhysicalResourceId": STACK_ID if name == STACK else name,
                "ResourceType": "AWS::CloudFormation::Stack" if name == STACK else "AWS::S3::Bucket",
                "ResourceStatus": status,
                "ResourceStatusReason": reason,
                "Timestamp": MOMENT + timedelta(seconds=n),
            }
            for n, (name, status, reason) in enumerate(events)
        ]
        self.answers("describe_stack_events", {"StackEvents": found[::-1]}, StackName=ANY)

    def makes_a_change_set(self) -> None:
        self.answers(
            "create_change_set",
            {},
            StackName=STACK,
            ChangeSetName=ANY,
            ChangeSetType="UPDATE",
            Parameters=[{"ParameterKey": "Environment", "ParameterValue": "dev"}],
            TemplateBody=BODY,
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
            Tags=TAGS,
        )

    def describes_the_change_set(self, status: str, *changes: tuple[str, str, str], why: str = "", **more: Any) -> None:
        found = [
            {
                "Type": "Resource",
                "ResourceChange": {
                    "Action": action,
                    "LogicalResourceId": name,
                    "ResourceType": "AWS::Kinesis::Stream",
                    **({"Replacement": replacement} if replacement else {}),
                },
            }
            for action, name, replacement in changes
        ]
        request = {"StackName": STACK, "ChangeSetName": ANY}
        answer = {"Status": status, "StatusReason": why, "Changes": found}
        if "next" in more:
            answer["NextToken"] = more["next"]
        if "after" in more:
            request["NextToken"] = more["after"]
        self.answers("describe_change_set", answer, **request)

    def deletes_the_change_set(self) -> None:
        self.answers("delete_change_set", {}, StackName=STACK, ChangeSetName=ANY)

    def _stack(self, status: str, why: str) -> dict[str, Any]:
        return {
            "StackId": STACK_ID,
            "StackName": STACK,
            "CreationTime": MOMENT,
            "StackStatus": status,
            "StackStatusReason": why,
            "Parameters": [{"ParameterKey": "Environment", "ParameterValue": "dev"}],
            "Tags": TAGS,
        }


@pytest.fixture
def clients() -> Clients:
    return Clients("eu-central-1")


@pytest.fixture
def cloudformation(clients: Clients) -> Iterator[CloudFormation]:
    client = boto3.client("cloudformation", **SETTINGS)
    clients._made["cloudformation"] = client
    with Stubber(client) as stub:
        yield CloudFormation(stub)
        stub.assert_no_pending_responses()


@pytest.fixture
def stacks(clients: Clients) -> Stacks:
    return Stacks(DEV, clients, Told(), poll=0)


@pytest.fixture
def deployment(stacks: Stacks, tmp_path: Path) -> Deployment:
    return Deployment(stacks, ["streams"], {"streams": BODY}, Artifacts(tmp_path, {}, Told()))


def test_a_change_set_of_several_pages_is_read_whole_and_deleted(
    cloudformation: CloudFormation, deployment: Deployment
) -> None:
    cloudformation.has("UPDATE_COMPLETE", name=None)
    cloudformation.makes_a_change_set()
    cloudformation.describes_the_change_set("CREATE_IN_PROGRESS")
    cloudformation.describes_the_change_set(
        "CREATE_COMPLETE", ("Add", "A", ""), ("Remove", "B", ""), ("Modify", "C", "False"), next="more"
    )
    cloudformation.describes_the_change_set(
        "CREATE_COMPLETE", ("Modify", "D", "True"), ("Modify", "E", "Conditional"), after="more"
    )
    cloudformation.deletes_the_change_set()

    [step] = deployment.plan()

    assert [(change.what, change.name) for change in step.changes or ()] == [
        ("create", "A"),
        ("delete", "B"),
        ("change", "C"),
        ("replace", "D"),
        ("may be replaced", "E"),
    ]
    with pytest.raises(Refused, match=r"B \(AWS::Kinesis::Stream\) of streams, D \(AWS::Kinesis::Stream\)"):
        plan.refuse_to_lose([step])


def test_a_change_set_without_changes_is_none(cloudformation: CloudFormation, deployment: Deployment) -> None:
    cloudformation.has("UPDATE_COMPLETE", name=None)
    cloudformation.makes_a_change_set()
    cloudformation.describes_the_change_set("FAILED", why="The submitted information didn't contain changes. Submit…")
    cloudformation.deletes_the_change_set()

    [step] = deployment.plan()

    assert step.nothing


def test_a_change_set_that_cannot_be_made_says_why_and_is_deleted(
    cloudformation: CloudFormation, deployment: Deployment
) -> None:
    cloudformation.has("UPDATE_COMPLETE", name=None)
    cloudformation.makes_a_change_set()
    cloudformation.describes_the_change_set("FAILED", why="Parameters: [X] do not exist in the template")
    cloudformation.deletes_the_change_set()

    with pytest.raises(Refused, match=r"cannot be updated, AWS says: Parameters: \[X\] do not exist.*Next: mend it"):
        deployment.plan()


def test_a_replacement_of_data_is_not_begun(cloudformation: CloudFormation, deployment: Deployment) -> None:
    for name in (None, None):
        cloudformation.has("UPDATE_COMPLETE", name=name)
        cloudformation.makes_a_change_set()
        cloudformation.describes_the_change_set("CREATE_COMPLETE", ("Modify", "Clicks", "True"))
        cloudformation.deletes_the_change_set()

    deployment.plan()
    with pytest.raises(Refused, match="--delete-data"):
        list(deployment.up())


def test_a_bucket_that_was_written_to_while_it_was_deleted_is_emptied_once_more(
    cloudformation: CloudFormation, stacks: Stacks, clients: Clients
) -> None:
    s3 = boto3.client("s3", **SETTINGS)
    clients._made["s3"] = s3
    bucket = {"LogicalResourceId": "Lake", "PhysicalResourceId": "lake", "ResourceType": "AWS::S3::Bucket"}
    listed = {
        "StackResourceSummaries": [
            {**bucket, "ResourceStatus": "CREATE_COMPLETE", "LastUpdatedTimestamp": MOMENT},
        ]
    }
    began = (STACK, "DELETE_IN_PROGRESS", "")
    failed = ("Lake", "DELETE_FAILED", "The bucket you tried to delete is not empty (409)")
    before: list[tuple[str, str, str]] = [(STACK, "CREATE_COMPLETE", "")]
    with Stubber(s3) as stub:
        for _ in range(2):
            stub.add_response(
                "list_object_versions", {"Versions": [{"Key": "late", "VersionId": "1"}]}, {"Bucket": "lake"}
            )
            stub.add_response("delete_objects", {}, {"Bucket": "lake", "Delete": ANY})
            stub.add_response("list_multipart_uploads", {}, {"Bucket": "lake"})
        cloudformation.has("CREATE_COMPLETE", name=STACK)
        for last in (("DELETE_FAILED", failed), ("DELETE_COMPLETE", ("Lake", "DELETE_COMPLETE", ""))):
            cloudformation.has("CREATE_COMPLETE", name=STACK)
            cloudformation.answers("list_stack_resources", listed, StackName=STACK)
            cloudformation.has("CREATE_COMPLETE", name=STACK)
            cloudformation.says(*before)
            cloudformation.answers("delete_stack", {}, StackName=STACK)
            cloudformation.has("DELETE_IN_PROGRESS", name=STACK_ID)
            cloudformation.has(last[0], name=STACK_ID, why="The following resource(s) failed to delete: [Lake].")
            before += [began, last[1]]
            cloudformation.says(*before)

        Teardown(stacks)._delete("streams")

        stub.assert_no_pending_responses()
    assert "something was written meanwhile: emptying once more" in stacks.tell.lines  # type: ignore[attr-defined]


def test_an_object_that_cannot_be_deleted_is_named(clients: Clients) -> None:
    s3 = boto3.client("s3", **SETTINGS)
    clients._made["s3"] = s3
    with Stubber(s3) as stub:
        stub.add_response("list_object_versions", {"Versions": [{"Key": "kept", "VersionId": "1"}]}, {"Bucket": "lake"})
        stub.add_response(
            "delete_objects",
            {"Errors": [{"Key": "kept", "Code": "AccessDenied", "Message": "it is locked"}]},
            {"Bucket": "lake", "Delete": {"Objects": [{"Key": "kept", "VersionId": "1"}], "Quiet": True}},
        )

        with pytest.raises(Refused, match="kept cannot be deleted, AWS says: it is locked"):
            list(empty(clients, "lake"))


def test_a_bucket_that_is_gone_is_empty(clients: Clients) -> None:
    s3 = boto3.client("s3", **SETTINGS)
    clients._made["s3"] = s3
    with Stubber(s3) as stub:
        stub.add_client_error("list_object_versions", "NoSuchBucket")

        assert list(empty(clients, "lake")) == []
