"""Takes an environment away: says what would be lost, empties, deletes, and looks whether anything is left."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from clickstream.errors import Refused
from deploy import template
from deploy.aws import Clients, answering, code, explained
from deploy.parts import ENVIRONMENT_TAG, PROJECT_NAME, stack_name
from deploy.stacks import Stacks

COUNTED: Final = 10_000
"""Objects of a bucket that are counted before it is "more than"."""

_REBUILT: Final = {"artifacts"}  # whose buckets hold nothing that is not made anew from the sources
_ATTEMPTS: Final = 4
_STUCK_BUCKET: Final = re.compile(r"not empty|BucketNotEmpty", re.IGNORECASE)


class Loss(NamedTuple):
    """Data that would be gone for good."""

    part: str
    name: str
    what: str


class Left(NamedTuple):
    """Something of the environment that is still there."""

    kind: str
    name: str


@dataclass(slots=True)
class Teardown:
    """What `down` does to an environment, or to some of its parts."""

    stacks: Stacks
    parts: Sequence[str] | None = None  # all there are, if not given
    _api_ids: list[str] = field(default_factory=list)

    def ours(self) -> list[str]:
        """Return the parts that are there and are to go, in the order in which they go."""
        there = list(self.stacks.there())
        return [part for part in reversed(there) if self.parts is None or part in self.parts]

    def losses(self) -> list[Loss]:
        """Say what data would be lost; empty buckets and what is made anew are none."""
        return [
            Loss(part, one["PhysicalResourceId"], what)
            for part in self.ours()
            if part not in _REBUILT
            for one in self.stacks.resources(self._stack(part))
            if one["ResourceType"] in template.HOLDS_DATA and one["ResourceStatus"] != "DELETE_COMPLETE"
            if one.get("PhysicalResourceId")
            if (what := self._holds(one["ResourceType"], one["PhysicalResourceId"]))
        ]

    def down(self) -> None:
        """Delete the stacks, last part first, with everything in their buckets; what has begun already goes on."""
        there = self.stacks.there()
        self._api_ids = [found.outputs["ApiId"] for found in there.values() if "ApiId" in found.outputs]
        for part in self.ours():
            self.stacks.tell.step(f"{part}: deleting")
            self._delete(part)
        if self.parts is None:
            self._delete_logs()
            self._delete_snapshots()

    def left(self, patience: float = 120.0) -> list[Left]:
        """Return what is still there of an environment that was deleted whole, once AWS' own lists have settled."""
        deadline = time.monotonic() + patience
        while True:
            found = leftovers(self.stacks.clients, self.stacks.environment.name)
            if not found or time.monotonic() >= deadline:
                return found
            self.stacks.tell.now(f"waiting until AWS no longer lists {found[0].kind} {found[0].name}")
            time.sleep(self.stacks.poll)

    def _stack(self, part: str) -> str:
        return stack_name(self.stacks.environment.name, part)

    def _holds(self, kind: str, name: str) -> str | None:
        if kind == "AWS::S3::Bucket":
            return _in_bucket(self.stacks.clients, name)
        if kind == "AWS::Kinesis::Stream":
            return "the records of its retention time"
        return "all that is in it"

    def _delete(self, part: str) -> None:
        stack = self._stack(part)
        if (found := self.stacks.describe(stack)) and found["StackStatus"].endswith("_IN_PROGRESS"):
            self.stacks.tell.line(f"waiting for what is under way: {found['StackStatus']}")
            try:
                self.stacks.resume(stack)
            except Refused as error:
                self.stacks.tell.line(str(error))
        for attempt in range(1, _ATTEMPTS + 1):
            if self.stacks.describe(stack) is None:
                return
            for one in self.stacks.resources(stack):
                if one["ResourceType"] == "AWS::S3::Bucket" and one["ResourceStatus"] != "DELETE_COMPLETE":
                    self._empty(one.get("PhysicalResourceId"))
            try:
                self.stacks.delete(stack)
            except Refused as error:  # what Firehose still had is written while it is deleted
                if attempt == _ATTEMPTS or not _STUCK_BUCKET.search(str(error)):
                    raise
                self.stacks.tell.line("something was written meanwhile: emptying once more")
            else:
                return

    def _empty(self, bucket: str | None) -> None:
        if bucket:
            with answering(f"emptying {bucket}"):
                for number in empty(self.stacks.clients, bucket):
                    self.stacks.tell.now(f"emptying {bucket}: {number:,} objects deleted")

    def _delete_logs(self) -> None:
        """Delete the log groups that services made of themselves, which belong to no stack."""
        logs = self.stacks.clients("logs")
        with answering("deleting log groups"):
            for name in log_groups(self.stacks.clients, self.stacks.environment.name, self._api_ids):
                logs.delete_log_group(logGroupName=name)
                self.stacks.tell.line(f"✓ {name}  log group  deleted")

    def _delete_snapshots(self) -> None:
        """Delete the snapshots that CloudFormation took when it replaced the database."""
        mine = _mine(self.stacks.environment.name)
        with answering("deleting database snapshots"):
            for page in _pages(self.stacks.clients, "rds", "describe_db_cluster_snapshots", SnapshotType="manual"):
                for one in page["DBClusterSnapshots"]:
                    name = one["DBClusterSnapshotIdentifier"]
                    if mine(name) and one["DBClusterIdentifier"] == f"{PROJECT_NAME}-{self.stacks.environment.name}":
                        self.stacks.clients("rds").delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)
                        self.stacks.tell.line(f"✓ {name}  database snapshot  deleted")


def empty(clients: Clients, bucket: str) -> Iterator[int]:
    """Delete all versions of all objects and abort all uploads; hand over how many are gone. No bucket is fine."""
    s3 = clients("s3")
    gone = 0
    try:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            keys = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
            if not keys:
                continue
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            if errors := answer.get("Errors"):
                raise Refused(
                    f"{bucket}: {errors[0]['Key']} cannot be deleted, AWS says: {errors[0].get('Message')}. "
                    "Next: see the bucket's policy and locks"
                )
            gone += len(keys)
            yield gone
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for upload in page.get("Uploads", []):
                s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    except ClientError as error:
        if code(error) != "NoSuchBucket":
            raise


def _in_bucket(clients: Clients, bucket: str) -> str | None:
    number = 0
    with answering(f"looking into {bucket}"):
        try:
            for page in clients("s3").get_paginator("list_object_versions").paginate(Bucket=bucket):
                number += len(page.get("Versions", []))
                if number >= COUNTED:
                    return f"more than {number:,} objects"
        except ClientError as error:
            if code(error) != "NoSuchBucket":
                raise
    return f"{number:,} object{'s' if number > 1 else ''}" if number else None


def log_groups(clients: Clients, environment: str, api_ids: Sequence[str] = ()) -> list[str]:
    """Return the log groups whose name holds the environment's, and those of its APIs."""
    patterns = [f"{PROJECT_NAME}-{environment}", *(f"API-Gateway-Execution-Logs_{one}" for one in api_ids)]
    names = [
        group["logGroupName"]
        for pattern in patterns
        for page in _pages(clients, "logs", "describe_log_groups", logGroupNamePattern=pattern)
        for group in page["logGroups"]
    ]
    mine = _mine(environment)
    return sorted({name for name in names if mine(name) or any(one in name for one in patterns[1:])})


def leftovers(clients: Clients, environment: str) -> list[Left]:
    """List what is still there by its name or its tag. What AWS will delete by itself, like a key, is none of it."""
    mine = _mine(environment)
    found = [Left("log group", name) for name in log_groups(clients, environment)]
    for kind, service, operation, names in _LISTS:
        request = {"BucketRegion": clients.region} if service == "s3" else {}  # they are listed for all regions
        for page in _pages(clients, service, operation, **request):
            found += [Left(kind, name) for name in names(page) if mine(name)]
    listed = {service for _, service, _, _ in _LISTS} | {"logs"}
    tags = [{"Key": ENVIRONMENT_TAG, "Values": [environment]}]
    for page in _pages(clients, "resourcegroupstaggingapi", "get_resources", TagFilters=tags):
        for one in page["ResourceTagMappingList"]:
            arn = one["ResourceARN"]
            service = arn.split(":")[2]
            if service in listed or service == "cloudformation" or (service == "kms" and _goes(clients, arn)):
                continue  # these have answered for themselves, and know sooner than the tags do
            found.append(Left(service, arn))
    return found


_LISTS: Final[tuple[tuple[str, str, str, Callable[[Mapping[str, Any]], list[str]]], ...]] = (
    ("stack", "cloudformation", "describe_stacks", lambda page: [one["StackName"] for one in page["Stacks"]]),
    ("bucket", "s3", "list_buckets", lambda page: [one["Name"] for one in page["Buckets"]]),
    ("stream", "kinesis", "list_streams", lambda page: page["StreamNames"]),
    ("Firehose", "firehose", "list_delivery_streams", lambda page: page["DeliveryStreamNames"]),
    ("Lambda", "lambda", "list_functions", lambda page: [one["FunctionName"] for one in page["Functions"]]),
    ("queue", "sqs", "list_queues", lambda page: [one.rpartition("/")[2] for one in page.get("QueueUrls", [])]),
    ("topic", "sns", "list_topics", lambda page: [one["TopicArn"].rpartition(":")[2] for one in page["Topics"]]),
    ("secret", "secretsmanager", "list_secrets", lambda page: [one["Name"] for one in page["SecretList"]]),
    (
        "database",
        "rds",
        "describe_db_clusters",
        lambda page: [one["DBClusterIdentifier"] for one in page["DBClusters"]],
    ),
    (
        "database snapshot",
        "rds",
        "describe_db_cluster_snapshots",
        lambda page: [one["DBClusterSnapshotIdentifier"] for one in page["DBClusterSnapshots"]],
    ),
    (
        "Redis",
        "elasticache",
        "describe_replication_groups",
        lambda page: [one["ReplicationGroupId"] for one in page["ReplicationGroups"]],
    ),
    ("alarm", "cloudwatch", "describe_alarms", lambda page: [one["AlarmName"] for one in page["MetricAlarms"]]),
    (
        "job",
        "kinesisanalyticsv2",
        "list_applications",
        lambda page: [one["ApplicationName"] for one in page["ApplicationSummaries"]],
    ),
    ("Glue database", "glue", "get_databases", lambda page: [one["Name"] for one in page["DatabaseList"]]),
)
"""What can be listed by name: what it is called, the service, its operation, and the names in an answer."""


def _mine(environment: str) -> Callable[[str], bool]:
    name = re.compile(rf"(^|[^a-z0-9]){PROJECT_NAME}[-_]{environment}([^a-z0-9]|$)")
    return lambda text: bool(name.search(text))


def _pages(clients: Clients, service: str, operation: str, **request: Any) -> Iterator[Mapping[str, Any]]:
    client = clients(service)
    try:
        if client.can_paginate(operation):
            yield from client.get_paginator(operation).paginate(**request)
            return
        answer = getattr(client, operation)(**request)
        yield answer
        # two services that list by hand: the next page is asked for by the last name
        while answer.get("HasMoreDeliveryStreams"):
            last = answer["DeliveryStreamNames"][-1]
            answer = getattr(client, operation)(**request, ExclusiveStartDeliveryStreamName=last)
            yield answer
    except (ClientError, BotoCoreError) as error:
        if not clients.at_stand_in:  # which has not all of AWS' services
            raise explained(error, f"listing what {service} has") from error


def _goes(clients: Clients, key: str) -> bool:
    """Say whether a key waits for its deletion, which AWS does after some days."""
    with answering(f"asking for {key}"):
        state = clients("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"]
    return bool(state == "PendingDeletion")
