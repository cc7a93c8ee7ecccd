"""The Managed Flink application: start, stop, update with a snapshot first, and the way back."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import ClientError

from clickstream.errors import Refused, Unavailable
from deploy.aws import Clients, Tell, answering, code, words

PATIENCE: Final = 1800.0
"""Seconds that a start, a stop, an update or a snapshot may take; large states take minutes."""

_UNDER_WAY: Final = {
    "STARTING",
    "STOPPING",
    "UPDATING",
    "AUTOSCALING",
    "FORCE_STOPPING",
    "ROLLING_BACK",
    "MAINTENANCE",
    "DELETING",
}
_CAN_GO_BACK: Final = {"RUNNING", "UPDATING", "AUTOSCALING"}


@dataclass(slots=True)
class Application:
    """One application by its name. Each command says first what state it needs, and waits until its work is done."""

    name: str
    clients: Clients
    tell: Tell
    poll: float = 5.0  # seconds between two questions
    patience: float = PATIENCE

    def describe(self) -> dict[str, Any]:
        """Return what the service says of it."""
        with answering(f"asking for the job {self.name}"):
            try:
                answer = self._client.describe_application(ApplicationName=self.name)
            except ClientError as error:
                if code(error) == "ResourceNotFoundException":
                    raise Refused(f"there is no job {self.name}. Next: clickstream deploy up --only job") from None
                raise
        detail: dict[str, Any] = answer["ApplicationDetail"]
        return detail

    def start(self, snapshot: str | None = "latest", *, skip_lost_state: bool = False) -> None:
        """Start it from its latest snapshot if there is one, from one of a name, or with None from nothing."""
        self._need({"READY"}, "started")
        if snapshot == "latest" and not self.snapshots():
            snapshot = None
        run: dict[str, Any] = {"ApplicationRestoreConfiguration": _restore(snapshot)}
        if skip_lost_state:
            run["FlinkRunConfiguration"] = {"AllowNonRestoredState": True}
        self.tell.step(f"starting {self.name} {f'from snapshot {snapshot}' if snapshot else 'without a snapshot'}")
        with answering(f"starting {self.name}"):
            answer = self._client.start_application(ApplicationName=self.name, RunConfiguration=run)
        self._reach("RUNNING", answer)

    def stop(self, *, force: bool = False) -> None:
        """Stop it with a snapshot; forced, without one: what came since the last checkpoint is then done again."""
        self._need({"RUNNING"} if not force else {"RUNNING", *_UNDER_WAY}, "stopped")
        self.tell.step(f"stopping {self.name} {'without' if force else 'with'} a snapshot")
        with answering(f"stopping {self.name}"):
            answer = self._client.stop_application(ApplicationName=self.name, Force=force)
        self._reach("READY", answer)

    def update(self, bucket: str, key: str) -> None:
        """Give it another zip: a running job is snapshotted first, and goes on from there with the new code.

        The update carries the token of the version that was looked at: if somebody else was quicker, it is refused.
        """
        detail = self._need({"RUNNING", "READY"}, "updated")
        if _code_key(detail) == key:
            self.tell.step(f"{self.name} has this zip already, {key}")
            return
        running = detail["ApplicationStatus"] == "RUNNING"
        if running:
            self.snapshot()
            detail = self.describe()
        request: dict[str, Any] = {
            "ApplicationName": self.name,
            "ConditionalToken": detail["ConditionalToken"],
            "ApplicationConfigurationUpdate": _code_update(f"arn:{_partition(detail)}:s3:::{bucket}", key),
        }
        if running:
            request["RunConfigurationUpdate"] = {"ApplicationRestoreConfiguration": _restore("latest")}
        self._reach("RUNNING" if running else "READY", self._update(request))

    def rollback(self) -> None:
        """Go back to the version before, and to the snapshot that was taken before it was left."""
        detail = self._need({"RUNNING", "READY", "UPDATING", "AUTOSCALING"}, "rolled back")
        if detail["ApplicationStatus"] in _CAN_GO_BACK:
            self._roll_back(detail)
        else:
            self._put_back(detail)

    def snapshot(self) -> str:
        """Take a snapshot of the running job, wait until it is whole, and return its name."""
        name = f"clickstream-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        self.tell.step(f"taking snapshot {name}")
        with answering(f"taking a snapshot of {self.name}"):
            self._client.create_application_snapshot(ApplicationName=self.name, SnapshotName=name)
        deadline = time.monotonic() + self.patience
        while True:
            with answering(f"asking for snapshot {name}"):
                answer = self._client.describe_application_snapshot(ApplicationName=self.name, SnapshotName=name)
            status = answer["SnapshotDetails"]["SnapshotStatus"]
            if status == "READY":
                return name
            if status == "FAILED":
                raise Refused(
                    f"snapshot {name} of {self.name} failed, and nothing was changed. Next: see in the job's log why "
                    "its checkpoints fail; if only new code can mend that, clickstream deploy job stop --force, then "
                    "the update, then job start: it goes on from the snapshot before"
                )
            self._wait(deadline, f"snapshot {name}: {status.lower()}")

    def snapshots(self, before: int | None = None) -> list[str]:
        """Return the names of the snapshots that can be started from, newest first: all, or of versions before one."""
        found: list[dict[str, Any]] = []
        more: dict[str, str] = {}
        while True:
            with answering(f"listing the snapshots of {self.name}"):
                answer = self._client.list_application_snapshots(ApplicationName=self.name, **more)
            found += answer.get("SnapshotSummaries") or []
            if not answer.get("NextToken"):
                break
            more = {"NextToken": answer["NextToken"]}
        ready = [
            one
            for one in found
            if one["SnapshotStatus"] == "READY" and (before is None or one["ApplicationVersionId"] < before)
        ]
        ready.sort(
            key=lambda one: one.get("SnapshotCreationTimestamp") or datetime.min.replace(tzinfo=UTC), reverse=True
        )
        return [one["SnapshotName"] for one in ready]

    def snapshot_if_running(self) -> None:
        """Take a snapshot before somebody else changes the job; one that is not running needs none."""
        if self.describe()["ApplicationStatus"] == "RUNNING":
            self.snapshot()

    @property
    def _client(self) -> Any:
        return self.clients("kinesisanalyticsv2")

    def _need(self, states: set[str], done: str) -> dict[str, Any]:
        detail = self.describe()
        status = detail["ApplicationStatus"]
        if status in states:
            return detail
        if status in _UNDER_WAY:
            raise Unavailable(f"{self.name} is {status}, and cannot be {done} now. Next: again in a minute")
        then = {"READY": "clickstream deploy job start", "RUNNING": "clickstream deploy job stop"}.get(
            status, "clickstream deploy status"
        )
        said = {"READY": "not running"}.get(status, status)
        raise Refused(f"{self.name} is {said}, and so cannot be {done}. Next: {then}")

    def _update(self, request: dict[str, Any]) -> Mapping[str, Any]:
        self.tell.step(f"updating {self.name}")
        with answering(f"updating {self.name}"):
            try:
                answer: Mapping[str, Any] = self._client.update_application(**request)
            except ClientError as error:
                if code(error) == "ConcurrentModificationException":
                    raise Refused(
                        f"somebody else has just changed {self.name}: {words(error)}. "
                        "Next: clickstream deploy status, and the update again if it is still wanted"
                    ) from None
                raise
        return answer

    def _roll_back(self, detail: Mapping[str, Any]) -> None:
        version = detail["ApplicationVersionId"]
        self.tell.step(f"rolling {self.name} back from version {version}")
        with answering(f"rolling {self.name} back"):
            answer = self._client.rollback_application(ApplicationName=self.name, CurrentApplicationVersionId=version)
        self._reach("RUNNING", answer)

    def _put_back(self, detail: Mapping[str, Any]) -> None:
        """Do by hand what the service does for running jobs alone."""
        version = detail["ApplicationVersionId"]
        if version < 2:
            raise Refused(f"{self.name} has no version before this one. Next: clickstream deploy job start")
        with answering(f"asking for version {version - 1} of {self.name}"):
            before = self._client.describe_application_version(
                ApplicationName=self.name, ApplicationVersionId=version - 1
            )["ApplicationVersionDetail"]
        where = _code(before)
        answer = self._update(
            {
                "ApplicationName": self.name,
                "ConditionalToken": detail["ConditionalToken"],
                "ApplicationConfigurationUpdate": _code_update(where["BucketARN"], where["FileKey"]),
            }
        )
        self._reach("READY", answer)
        snapshots = self.snapshots(before=version)
        self.start(snapshots[0] if snapshots else None)

    def _reach(self, wanted: str, answer: Mapping[str, Any]) -> None:
        """Wait until the operation that was begun is over and the job in the state that it leads to."""
        deadline = time.monotonic() + self.patience
        while True:
            failure = self._failure(answer["OperationId"])
            detail = self.describe()
            status = detail["ApplicationStatus"]
            if status == wanted and failure is None:
                self.tell.step(f"{self.name} is {status}, version {detail['ApplicationVersionId']}")
                return
            if failure:
                raise Refused(
                    f"{self.name} is {status} instead of {wanted}: {failure}. Next: read its log in CloudWatch; "
                    "clickstream deploy job rollback goes back to the version before"
                )
            self._wait(deadline, f"{self.name}: {status.lower()}")

    def _failure(self, operation: str) -> str | None:
        """Return why an operation failed, nothing while it is at work, and None once it has succeeded."""
        with answering(f"asking what becomes of {self.name}"):
            detail = self._client.describe_application_operation(ApplicationName=self.name, OperationId=operation)[
                "ApplicationOperationInfoDetails"
            ]
        if detail["OperationStatus"] == "IN_PROGRESS":
            return ""
        if detail["OperationStatus"] == "SUCCESSFUL":
            return None
        error = (detail.get("OperationFailureDetails") or {}).get("ErrorInfo") or {}
        return str(error.get("ErrorString") or f"it was {detail['OperationStatus'].lower()}, and AWS does not say why")

    def _wait(self, deadline: float, what: str) -> None:
        if time.monotonic() >= deadline:
            raise Unavailable(
                f"{what}, and has been for {self.patience / 60:.0f} minutes. "
                "Next: clickstream deploy status shows how it goes on; nothing here needs to wait for it"
            )
        self.tell.now(what)
        time.sleep(self.poll)


def _restore(snapshot: str | None) -> dict[str, str]:
    if snapshot is None:
        return {"ApplicationRestoreType": "SKIP_RESTORE_FROM_SNAPSHOT"}
    if snapshot == "latest":
        return {"ApplicationRestoreType": "RESTORE_FROM_LATEST_SNAPSHOT"}
    return {"ApplicationRestoreType": "RESTORE_FROM_CUSTOM_SNAPSHOT", "SnapshotName": snapshot}


def _code_update(bucket_arn: str, key: str) -> dict[str, Any]:
    where = {"BucketARNUpdate": bucket_arn, "FileKeyUpdate": key}
    content = {"CodeContentTypeUpdate": "ZIPFILE", "CodeContentUpdate": {"S3ContentLocationUpdate": where}}
    return {"ApplicationCodeConfigurationUpdate": content}


def _code(detail: Mapping[str, Any]) -> dict[str, Any]:
    configured = detail["ApplicationConfigurationDescription"]["ApplicationCodeConfigurationDescription"]
    where: dict[str, Any] = configured["CodeContentDescription"]["S3ApplicationCodeLocationDescription"]
    return where


def _code_key(detail: Mapping[str, Any]) -> str | None:
    try:
        return str(_code(detail)["FileKey"])
    except KeyError:
        return None


def _partition(detail: Mapping[str, Any]) -> str:
    return str(detail["ApplicationARN"]).split(":")[1]
