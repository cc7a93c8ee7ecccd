"""Walks the plan: asks CloudFormation what there is, what a change would come to, and has it done."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import uuid4

from botocore.exceptions import ClientError

from clickstream.errors import Refused, Unavailable
from deploy import explain, plan, template
from deploy.artifacts import FILES, Artifacts, put
from deploy.aws import Clients, Tell, answering, words
from deploy.config import Environment
from deploy.job import Application
from deploy.parts import ENVIRONMENT_TAG, NAMES, stack_name
from deploy.plan import Change, Found, Later, Step, Wanted, What

LARGEST_BODY: Final = 51_200
"""Bytes of a template that may be sent along; a larger one is fetched from the artifacts bucket."""

_ALLOW: Final = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"]
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
        self._begun(stack_id, seen)
        self.follow(stack_id, seen)

    def _begun(self, stack_id: str, seen: set[str]) -> None:
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


@dataclass(slots=True)
class Deployment:
    """What `plan` and `up` do to an environment's parts."""

    stacks: Stacks
    parts: Sequence[str]
    bodies: Mapping[str, str]
    artifacts: Artifacts
    delete_data: bool = False
    done: list[str] = field(default_factory=list)  # stacks that were created, or changed

    @property
    def environment(self) -> Environment:
        """Whose parts they are."""
        return self.stacks.environment

    def plan(self) -> list[Step]:
        """Return the steps, with what each comes to as far as that can be told today."""
        there = self.stacks.there()
        return [self._step(self._wanted(part, there), there) for part in self._ours()]

    def up(self) -> Iterator[Step]:
        """Do what there is to do, part by part, and hand over each step that is done."""
        for part in self._ours():
            there = self.stacks.there()
            if part in there and there[part].status.endswith("_IN_PROGRESS"):
                self.stacks.tell.step(f"{part}: going on with what is under way")
                try:
                    self.stacks.resume(stack_name(self.environment.name, part))
                except Refused as error:  # what another left behind is decided on below
                    self.stacks.tell.line(str(error))
                there = self.stacks.there()
            step = self._step(self._wanted(part, there), there)
            self._do(step, there)
            yield step

    def _ours(self) -> list[str]:
        missing = [part for part in self.parts if part not in self.bodies]
        if missing:
            raise Refused(f"there is no template for {', '.join(missing)} in deploy/templates")
        return list(self.parts)

    def _wanted(self, part: str, there: Mapping[str, Found]) -> Wanted:
        wants = set(template.parameters(self.bodies[part]))
        keys = self.artifacts.keys(wants - set(self.environment.parameters.get(part, {})))
        return plan.Wiring(self.environment, self.parts, self.bodies, there, keys).wanted(part)

    def _step(self, wanted: Wanted, there: Mapping[str, Found]) -> Step:
        found = there.get(wanted.part)
        if found is not None and found.status.endswith("_COMPLETE"):
            found = replace(found, body=self.stacks.body(wanted.stack))
        step = plan.decide(wanted, found)
        if step.action != "update" or found is None or plan.awaited(step, found):
            return step
        with self._change_set(step, found, there) as change_set:
            return plan.with_changes(step, change_set.changes)

    def _do(self, step: Step, there: Mapping[str, Found]) -> None:
        if step.action == "stuck":
            raise Refused(f"{step.wanted.stack}: {step.why}")
        if step.action == "wait":
            raise Unavailable(f"{step.wanted.stack}: {step.why}. Next: the same command again")
        if not self.delete_data:
            plan.refuse_to_lose([step])
        if step.nothing:
            return
        unknown = [str(value) for value in step.wanted.parameters.values() if isinstance(value, Later)]
        if unknown:
            raise Refused(f"{step.wanted.stack} needs {', '.join(unknown)}, which its stack does not hand on")
        self._upload(step.wanted)
        self.stacks.tell.step(f"{step.wanted.part}: {_doing(step)}")
        if step.action == "recreate":
            self.stacks.delete(step.wanted.stack)
        if step.action == "update":
            self._before_update(step, there)
            with self._change_set(step, there[step.wanted.part], there) as change_set:
                if not self.delete_data:
                    plan.refuse_to_lose([plan.with_changes(step, change_set.changes)])
                if change_set.changes:
                    change_set.execute()
        else:
            self._create(step.wanted, there)
        self.done.append(step.wanted.part)

    def _before_update(self, step: Step, there: Mapping[str, Found]) -> None:
        """Take a snapshot of the job that is about to change."""
        name = there[step.wanted.part].outputs.get("JobName")
        if step.wanted.part == "job" and name:
            Application(name, self.stacks.clients, self.stacks.tell, self.stacks.poll).snapshot_if_running()

    def _create(self, wanted: Wanted, there: Mapping[str, Found]) -> None:
        with answering(f"creating {wanted.stack}"):
            made = self.stacks.clients("cloudformation").create_stack(
                StackName=wanted.stack,
                Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in wanted.known.items()],
                **self._source(wanted, there),
                **self._common(wanted),
            )
        self.stacks.follow(made["StackId"], set())

    def _upload(self, wanted: Wanted) -> None:
        bucket = wanted.parameters.get("ArtifactsBucket")
        for parameter in FILES:
            key = wanted.parameters.get(parameter)
            if isinstance(bucket, str) and key and parameter not in self.environment.parameters.get(wanted.part, {}):
                self.artifacts.upload(parameter, self.stacks.clients, bucket)

    def _source(self, wanted: Wanted, there: Mapping[str, Found]) -> dict[str, str]:
        """Return the template itself, or where it is if it is too large to be sent along."""
        body = wanted.body.encode()
        if len(body) <= LARGEST_BODY:
            return {"TemplateBody": wanted.body}
        artifacts = there.get("artifacts")
        bucket = artifacts.outputs.get("ArtifactsBucket") if artifacts else None
        if bucket is None:
            raise Refused(
                f"the template of {wanted.part} is so large that CloudFormation fetches it from the artifacts bucket, "
                f"which is not there. Next: clickstream deploy up --only artifacts"
            )
        key = f"templates/{wanted.part}-{hashlib.sha256(body).hexdigest()[:20]}.yaml"
        put(self.stacks.clients, bucket, key, body)
        s3 = self.stacks.clients("s3")
        signed: str = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
        return {"TemplateURL": signed.partition("?")[0]}

    def _common(self, wanted: Wanted) -> dict[str, Any]:
        return {"Capabilities": _ALLOW, "Tags": [{"Key": key, "Value": value} for key, value in wanted.tags.items()]}

    def _change_set(self, step: Step, found: Found, there: Mapping[str, Found]) -> "ChangeSet":
        parameters = [
            {"ParameterKey": name, "UsePreviousValue": True}
            if value is None
            else {"ParameterKey": name, "ParameterValue": value}
            for name, value in plan.previous(step, found).items()
        ]
        request = {"Parameters": parameters, **self._source(step.wanted, there), **self._common(step.wanted)}
        return ChangeSet(self.stacks, step.wanted.stack, request)


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
        self._stacks._begun(stack, seen)  # its other half
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


def _doing(step: Step) -> str:
    match step.action:
        case "create":
            return "creating"
        case "recreate":
            return f"creating anew, {step.why}"
        case _:
            return f"updating {len(step.changes or ())} resources"
