"""The stacks of an environment as CloudFormation has them: what they are, what happens to them, what would change."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from botocore.exceptions import ClientError

from clickstream.errors import Refused, Unavailable
from deploy import explain
from deploy.aws import Clients, Tell, answering, words
from deploy.config import Environment
from deploy.parts import ENVIRONMENT_TAG, NAMES, stack_name
from deploy.plan import Change, Found, What

_NO_CHANGES: Final = ("didn't contain changes", "No updates are to be performed")
_BEGINNINGS: Final = {"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS"}
_GOOD: Final = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE", "DELETE_COMPLETE"}


@dataclass(slots=True)
class Stacks:
    """The stacks of one environment."""

    environment: Environment
    clients: Clients
    tell: Tell
    poll: float = 5.0  # seconds between two questions

    def there(self) -> dict[str, Found]:
        """Return the stacks that are there, by part; those of parts that there no longer are stand at the end.

        What is only named like one of ours, without the environment's tag, is somebody else's.
        """
        prefix = stack_name(self.environment.name, "")
        pages = self.clients("cloudformation").get_paginator("describe_stacks").paginate()
        with answering("asking CloudFormation for the stacks"):
            listed = [stack for page in pages for stack in page["Stacks"] if stack["StackName"].startswith(prefix)]
        found = {stack["StackName"].removeprefix(prefix): _found(stack) for stack in listed}
        tag = self.environment.name
        by_part = {part: one for part, one in found.items() if part in NAMES or one.tags.get(ENVIRONMENT_TAG) == tag}
        order = [*NAMES, *sorted(set(by_part) - set(NAMES))]
        return {part: by_part[part] for part in order if part in by_part}

    def body(self, stack: str) -> str:
        """Return the template that a stack was made from."""
        with answering(f"reading the template of {stack}"):
            found = self.clients("cloudformation").get_template(StackName=stack, TemplateStage="Original")
        return str(found["TemplateBody"])

    def resources(self, stack: str) -> list[dict[str, Any]]:
        """List a stack's resources as they are."""
        pages = self.clients("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
        with answering(f"listing the resources of {stack}"):
            return [one for page in pages for one in page["StackResourceSummaries"]]

    def events(self, stack_id: str) -> list[dict[str, Any]]:
        """Return a stack's events, oldest first."""
        pages = self.clients("cloudformation").get_paginator("describe_stack_events").paginate(StackName=stack_id)
        with answering(f"reading the events of {stack_id}"):
            found = [event for page in pages for event in page["StackEvents"]]
        found.reverse()
        found.sort(key=lambda event: event["Timestamp"])
        return found

    def describe(self, stack: str) -> dict[str, Any] | None:
        """Describe a stack by its name or id, or return None if there is none."""
        with answering(f"asking for {stack}"):
            try:
                described: dict[str, Any] = self.clients("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
            except ClientError as error:
                if "does not exist" in words(error):
                    return None
                raise
        return described

    def follow(self, stack: str, seen: set[str]) -> None:
        """Tell what happens to a stack until AWS is done with it; `Refused` says why it failed."""
        events: list[dict[str, Any]] = []
        while True:
            described = self.describe(stack)
            if described is None:
                return
            for event in self.events(described["StackId"]):
                if event["EventId"] not in seen:
                    seen.add(event["EventId"])
                    events.append(event)
                    self._tell(event, stack)
            status = described["StackStatus"]
            if not status.endswith("_IN_PROGRESS"):
                break
            time.sleep(self.poll)
        if status not in _GOOD:
            reason = described.get("StackStatusReason") or f"the stack ended in {status}"
            raise Refused(f"{described['StackName']}: {explain.why(events, reason)}")

    def resume(self, stack: str) -> None:
        """Follow what is under way, from its beginning."""
        described = self.describe(stack)
        if described is None:
            return
        events = self.events(described["StackId"])
        started = [n for n, event in enumerate(events) if _is_stacks_own(event) and _status(event) in _BEGINNINGS]
        seen = {event["EventId"] for event in events[: started[-1] if started else 0]}
        self.follow(described["StackId"], seen)

    def delete(self, stack: str) -> None:
        """Delete a stack and wait until it is gone."""
        described = self.describe(stack)
        if described is None:
            return
        stack_id = described["StackId"]
        seen = {event["EventId"] for event in self.events(stack_id)}
        with answering(f"deleting {stack}"):
            self.clients("cloudformation").delete_stack(StackName=stack)
        self.begun(stack_id, seen)
        self.follow(stack_id, seen)

    def begun(self, stack_id: str, seen: set[str]) -> None:
        """Wait until AWS has taken up what it accepted; before, its status would be the old one."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            described = self.describe(stack_id)
            if described is None or described["StackStatus"].endswith("_IN_PROGRESS"):
                return
            if any(_is_stacks_own(event) and event["EventId"] not in seen for event in self.events(stack_id)):
                return
            time.sleep(min(self.poll, 1.0))
        raise Unavailable(f"AWS has accepted but not begun its work on {stack_id}. Next: the same command again")

    def _tell(self, event: Mapping[str, Any], stack: str) -> None:
        status, name, kind = _status(event), event["LogicalResourceId"], event["ResourceType"]
        if _is_stacks_own(event):
            return
        if status.endswith(("_COMPLETE", "_FAILED")):
            mark = "✗" if status.endswith("_FAILED") else "✓"
            self.tell.line(f"{mark} {name}  {kind}  {status.lower().replace('_', ' ')}")
        else:
            self.tell.now(f"{stack}: {name}  {kind}  {status.lower().replace('_', ' ')}")


class ChangeSet:
    """What an update of a stack would come to, asked of CloudFormation; gone again when the `with` block ends."""

    def __init__(self, stacks: Stacks, stack: str, request: Mapping[str, Any]) -> None:
        self._stacks = stacks
        self._names = {"StackName": stack, "ChangeSetName": f"clickstream-{uuid4().hex[:12]}"}
        self._request = request
        self._executed = False
        self.changes: tuple[Change, ...] = ()

    def __enter__(self) -> "ChangeSet":
        client = self._stacks.clients("cloudformation")
        with answering(f"asking what an update of {self._names['StackName']} comes to"):
            client.create_change_set(**self._names, ChangeSetType="UPDATE", **self._request)
            try:
                self.changes = tuple(self._settled())
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self._executed:
            with _nothing_answered():
                self._stacks.clients("cloudformation").delete_change_set(**self._names)

    def execute(self) -> None:
        """Have the changes made, and wait."""
        stack = self._names["StackName"]
        seen = {event["EventId"] for event in self._stacks.events(stack)}
        with answering(f"updating {stack}"), _nothing_answered():
            self._stacks.clients("cloudformation").execute_change_set(**self._names)
        self._executed = True
        self._stacks.begun(stack, seen)
        self._stacks.follow(stack, seen)

    def _settled(self) -> Iterator[Change]:
        client = self._stacks.clients("cloudformation")
        while True:
            found = client.describe_change_set(**self._names)
            if found["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
                break
            time.sleep(min(self._stacks.poll, 2.0))
        if found["Status"] == "FAILED":
            reason = found.get("StatusReason", "")
            if not any(words in reason for words in _NO_CHANGES):
                raise Refused(
                    f"{self._names['StackName']} cannot be updated, AWS says: {reason}. Next: {explain.advice(reason)}"
                )
            return
        while True:
            for change in found["Changes"]:
                yield _change(change["ResourceChange"])
            if not found.get("NextToken"):
                return
            found = client.describe_change_set(**self._names, NextToken=found["NextToken"])


def _nothing_answered() -> AbstractContextManager[None]:
    """Do without the empty result that these answers have at AWS; ministack's have none, which boto3 cannot read."""
    return suppress(KeyError)


def _change(said: Mapping[str, Any]) -> Change:
    what: What = "change"
    if said["Action"] == "Add":
        what = "create"
    elif said["Action"] == "Remove":
        what = "delete"
    elif said.get("Replacement") == "True":
        what = "replace"
    elif said.get("Replacement") == "Conditional" or said["Action"] == "Dynamic":
        what = "may be replaced"
    return Change(what, said["LogicalResourceId"], said["ResourceType"])


def _found(stack: Mapping[str, Any]) -> Found:
    return Found(
        status=stack["StackStatus"],
        parameters={one["ParameterKey"]: one.get("ParameterValue", "") for one in stack.get("Parameters", [])},
        outputs={one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])},
        tags={one["Key"]: one["Value"] for one in stack.get("Tags", [])},
        why=stack.get("StackStatusReason", ""),
    )


def _is_stacks_own(event: Mapping[str, Any]) -> bool:
    return bool(event.get("PhysicalResourceId") == event["StackId"])


def _status(event: Mapping[str, Any]) -> str:
    return str(event["ResourceStatus"])
