"""Walks the plan, and has CloudFormation do each step."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from clickstream.errors import Refused, Unavailable
from deploy import plan, template
from deploy.artifacts import FILES, Artifacts, put
from deploy.aws import answering
from deploy.config import Environment
from deploy.job import Application
from deploy.parts import stack_name
from deploy.plan import Found, Later, Step, Wanted
from deploy.stacks import ChangeSet, Stacks

LARGEST_BODY: Final = 51_200
"""Bytes of a template that may be sent along; a larger one is fetched from the artifacts bucket."""

_ALLOW: Final = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"]


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

    def _change_set(self, step: Step, found: Found, there: Mapping[str, Found]) -> ChangeSet:
        parameters = [
            {"ParameterKey": name, "UsePreviousValue": True}
            if value is None
            else {"ParameterKey": name, "ParameterValue": value}
            for name, value in plan.previous(step, found).items()
        ]
        request = {"Parameters": parameters, **self._source(step.wanted, there), **self._common(step.wanted)}
        return ChangeSet(self.stacks, step.wanted.stack, request)


def _doing(step: Step) -> str:
    match step.action:
        case "create":
            return "creating"
        case "recreate":
            return f"creating anew, {step.why}"
        case _:
            return f"updating {len(step.changes or ())} resources"
