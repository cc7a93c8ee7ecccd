"""The job's commands: requests that botocore itself has validated, in their order, and the states between them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from clickstream.errors import Refused, Unavailable
from deploy.aws import Clients
from deploy.job import Application
from tests.told import Told

NAME = "clickstream-dev"
MOMENT = datetime(2026, 11, 24, tzinfo=UTC)


class Service:
    """The service's answers, in the order in which they will be asked for."""

    def __init__(self, stub: Stubber) -> None:
        self._stub = stub

    def is_in(self, status: str, *, version: int = 3, key: str = "code/job-old.zip") -> None:
        code = {"BucketARN": "arn:aws:s3:::artifacts", "FileKey": key}
        content = {"S3ApplicationCodeLocationDescription": code}
        detail = {
            "ApplicationARN": f"arn:aws:kinesisanalytics:eu-central-1:000000000000:application/{NAME}",
            "ApplicationName": NAME,
            "RuntimeEnvironment": "FLINK-1_20",
            "ApplicationStatus": status,
            "ApplicationVersionId": version,
            "ConditionalToken": f"token-{version}",
            "ApplicationConfigurationDescription": {
                "ApplicationCodeConfigurationDescription": {
                    "CodeContentType": "ZIPFILE",
                    "CodeContentDescription": content,
                }
            },
        }
        self.answers("describe_application", {"ApplicationDetail": detail}, ApplicationName=NAME)

    def operation_is(self, status: str, error: str | None = None) -> None:
        details: dict[str, Any] = {
            "Operation": "UpdateApplication",
            "StartTime": MOMENT,
            "EndTime": MOMENT,
            "OperationStatus": status,
        }
        if error:
            details["OperationFailureDetails"] = {"ErrorInfo": {"ErrorString": error}}
        self.answers(
            "describe_application_operation",
            {"ApplicationOperationInfoDetails": details},
            ApplicationName=NAME,
            OperationId="op",
        )

    def snapshot_is(self, status: str) -> None:
        detail = {"SnapshotName": "s", "SnapshotStatus": status, "ApplicationVersionId": 3}
        self.answers(
            "describe_application_snapshot", {"SnapshotDetails": detail}, ApplicationName=NAME, SnapshotName=ANY
        )

    def takes_a_snapshot(self) -> None:
        self.answers("create_application_snapshot", {}, ApplicationName=NAME, SnapshotName=ANY)
        self.snapshot_is("CREATING")
        self.snapshot_is("READY")

    def has_snapshots(self, *names: str, after: str | None = None) -> None:
        found = [
            {
                "SnapshotName": name,
                "SnapshotStatus": "READY",
                "ApplicationVersionId": 4 if name == after else 3,
                "SnapshotCreationTimestamp": MOMENT + timedelta(minutes=n),
            }
            for n, name in enumerate(names)
        ]
        self.answers("list_application_snapshots", {"SnapshotSummaries": found}, ApplicationName=NAME)

    def starts(self, restore: dict[str, str], **run: Any) -> None:
        configuration = {"ApplicationRestoreConfiguration": restore, **run}
        self.answers("start_application", {"OperationId": "op"}, ApplicationName=NAME, RunConfiguration=configuration)

    def updates(self, key: str, token: str, **more: Any) -> None:
        where = {"BucketARNUpdate": "arn:aws:s3:::artifacts", "FileKeyUpdate": key}
        code = {"CodeContentTypeUpdate": "ZIPFILE", "CodeContentUpdate": {"S3ContentLocationUpdate": where}}
        self.answers(
            "update_application",
            {"ApplicationDetail": _short("UPDATING"), "OperationId": "op"},
            ApplicationName=NAME,
            ConditionalToken=token,
            ApplicationConfigurationUpdate={"ApplicationCodeConfigurationUpdate": code},
            **more,
        )

    def answers(self, operation: str, answer: dict[str, Any], **request: Any) -> None:
        self._stub.add_response(operation, answer, request)

    def refuses(self, operation: str, code: str) -> None:
        self._stub.add_client_error(operation, code, "it is not as you think")


def _short(status: str) -> dict[str, Any]:
    return {
        "ApplicationARN": f"arn:aws:kinesisanalytics:eu-central-1:000000000000:application/{NAME}",
        "ApplicationName": NAME,
        "RuntimeEnvironment": "FLINK-1_20",
        "ApplicationStatus": status,
        "ApplicationVersionId": 4,
    }


@pytest.fixture(scope="module")
def client() -> Any:
    return boto3.client(
        "kinesisanalyticsv2", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x"
    )


@pytest.fixture
def service(client: Any) -> Iterator[Service]:
    with Stubber(client) as stub:
        yield Service(stub)
        stub.assert_no_pending_responses()


@pytest.fixture
def job(client: Any) -> Application:
    clients = Clients("eu-central-1")
    clients._made["kinesisanalyticsv2"] = client
    return Application(NAME, clients, Told(), poll=0, patience=60)


def test_an_update_takes_a_snapshot_first_and_carries_the_token_of_the_version_it_looked_at(
    service: Service, job: Application
) -> None:
    service.is_in("RUNNING")
    service.takes_a_snapshot()
    service.is_in("RUNNING")
    restore = {"ApplicationRestoreConfiguration": {"ApplicationRestoreType": "RESTORE_FROM_LATEST_SNAPSHOT"}}
    service.updates("code/job-new.zip", "token-3", RunConfigurationUpdate=restore)
    service.operation_is("IN_PROGRESS")
    service.is_in("UPDATING")
    service.operation_is("SUCCESSFUL")
    service.is_in("RUNNING", version=4)

    job.update("artifacts", "code/job-new.zip")


def test_a_job_that_is_stopped_is_updated_without_a_snapshot_and_stays_stopped(
    service: Service, job: Application
) -> None:
    service.is_in("READY")
    service.updates("code/job-new.zip", "token-3")
    service.operation_is("SUCCESSFUL")
    service.is_in("READY", version=4)

    job.update("artifacts", "code/job-new.zip")


def test_the_same_zip_changes_nothing(service: Service, job: Application) -> None:
    service.is_in("RUNNING", key="code/job-same.zip")

    job.update("artifacts", "code/job-same.zip")


def test_a_snapshot_that_fails_leaves_the_job_as_it_was(service: Service, job: Application) -> None:
    service.is_in("RUNNING")
    service.answers("create_application_snapshot", {}, ApplicationName=NAME, SnapshotName=ANY)
    service.snapshot_is("FAILED")

    with pytest.raises(Refused, match="nothing was changed"):
        job.update("artifacts", "code/job-new.zip")


def test_an_update_that_somebody_else_was_quicker_with_is_refused(service: Service, job: Application) -> None:
    service.is_in("READY")
    service.refuses("update_application", "ConcurrentModificationException")

    with pytest.raises(Refused, match="somebody else has just changed"):
        job.update("artifacts", "code/job-new.zip")


def test_an_update_that_fails_says_aws_words_and_the_way_back(service: Service, job: Application) -> None:
    service.is_in("READY")
    service.updates("code/job-new.zip", "token-3")
    service.operation_is("FAILED", "the zip has no main.py")
    service.is_in("READY")

    with pytest.raises(Refused, match=r"the zip has no main.py.*deploy job rollback"):
        job.update("artifacts", "code/job-new.zip")


def test_a_start_restores_the_latest_snapshot(service: Service, job: Application) -> None:
    service.is_in("READY")
    service.has_snapshots("older", "newer")
    service.starts({"ApplicationRestoreType": "RESTORE_FROM_LATEST_SNAPSHOT"})
    service.operation_is("SUCCESSFUL")
    service.is_in("RUNNING")

    job.start()


def test_a_first_start_has_nothing_to_restore(service: Service, job: Application) -> None:
    service.is_in("READY")
    service.has_snapshots()
    service.starts({"ApplicationRestoreType": "SKIP_RESTORE_FROM_SNAPSHOT"})
    service.operation_is("SUCCESSFUL")
    service.is_in("RUNNING")

    job.start()


def test_a_start_from_a_snapshot_of_a_name_can_leave_out_what_is_no_longer_there(
    service: Service, job: Application
) -> None:
    service.is_in("READY")
    service.starts(
        {"ApplicationRestoreType": "RESTORE_FROM_CUSTOM_SNAPSHOT", "SnapshotName": "before"},
        FlinkRunConfiguration={"AllowNonRestoredState": True},
    )
    service.operation_is("SUCCESSFUL")
    service.is_in("RUNNING")

    job.start("before", skip_lost_state=True)


@pytest.mark.parametrize("force", [False, True])
def test_a_stop_waits_until_the_job_has_stopped(service: Service, job: Application, force: bool) -> None:
    service.is_in("RUNNING")
    service.answers("stop_application", {"OperationId": "op"}, ApplicationName=NAME, Force=force)
    service.operation_is("IN_PROGRESS")
    service.is_in("STOPPING")
    service.operation_is("SUCCESSFUL")
    service.is_in("READY")

    job.stop(force=force)


def test_a_running_job_is_rolled_back_by_the_service(service: Service, job: Application) -> None:
    service.is_in("RUNNING", version=4)
    answer = {"ApplicationDetail": _short("ROLLING_BACK"), "OperationId": "op"}
    service.answers("rollback_application", answer, ApplicationName=NAME, CurrentApplicationVersionId=4)
    service.operation_is("IN_PROGRESS")
    service.is_in("ROLLING_BACK", version=4)
    service.operation_is("SUCCESSFUL")
    service.is_in("RUNNING", version=5)

    job.rollback()


def test_a_job_that_its_update_left_stopped_gets_the_code_before_and_starts_from_its_snapshot(
    service: Service, job: Application
) -> None:
    service.is_in("READY", version=4, key="code/job-new.zip")
    before = {
        **_short("READY"),
        "ApplicationConfigurationDescription": {
            "ApplicationCodeConfigurationDescription": {
                "CodeContentType": "ZIPFILE",
                "CodeContentDescription": {
                    "S3ApplicationCodeLocationDescription": {
                        "BucketARN": "arn:aws:s3:::artifacts",
                        "FileKey": "code/job-old.zip",
                    }
                },
            }
        },
    }
    service.answers(
        "describe_application_version",
        {"ApplicationVersionDetail": before},
        ApplicationName=NAME,
        ApplicationVersionId=3,
    )
    service.updates("code/job-old.zip", "token-4")
    service.operation_is("SUCCESSFUL")
    service.is_in("READY", version=5)
    service.has_snapshots("long before", "before", "after", after="after")
    service.is_in("READY", version=5)
    service.starts({"ApplicationRestoreType": "RESTORE_FROM_CUSTOM_SNAPSHOT", "SnapshotName": "before"})
    service.operation_is("SUCCESSFUL")
    service.is_in("RUNNING", version=5)

    job.rollback()


@pytest.mark.parametrize(
    ("status", "do", "error", "words"),
    [
        ("RUNNING", "start", Refused, "deploy job stop"),
        ("READY", "stop", Refused, "not running"),
        ("STARTING", "start", Unavailable, "again in a minute"),
        ("UPDATING", "stop", Unavailable, "again in a minute"),
    ],
)
def test_what_the_jobs_state_does_not_allow_is_said_before_it_is_asked_for(
    service: Service, job: Application, status: str, do: str, error: type[Exception], words: str
) -> None:
    service.is_in(status)

    with pytest.raises(error, match=words):
        getattr(job, do)()


def test_a_job_that_is_not_there_is_refused_with_the_command_that_makes_it(service: Service, job: Application) -> None:
    service.refuses("describe_application", "ResourceNotFoundException")

    with pytest.raises(Refused, match="deploy up --only job"):
        job.start()


def test_a_wait_has_an_end_and_says_that_aws_goes_on(service: Service, job: Application) -> None:
    job.patience = 0
    service.is_in("RUNNING")
    service.answers("stop_application", {"OperationId": "op"}, ApplicationName=NAME, Force=False)
    service.operation_is("IN_PROGRESS")
    service.is_in("STOPPING")

    with pytest.raises(Unavailable, match="clickstream deploy status"):
        job.stop()
