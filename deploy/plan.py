"""What there is to do: the wanted stacks against those that are there, and a list of steps as the answer.

Nothing here asks or touches AWS. A stack that is to be changed says so; which of its resources that concerns is
CloudFormation's to know, and `deploy.execute` asks it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from clickstream.errors import Refused
from deploy import template
from deploy.config import Environment
from deploy.parts import ENVIRONMENT_TAG, NAMES, PART_TAG, stack_name

Action = Literal["create", "recreate", "update", "keep", "wait", "stuck"]
What = Literal["create", "change", "may be replaced", "replace", "delete"]

_SETTLED: Final = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"}
_NEVER_LIVED: Final = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "REVIEW_IN_PROGRESS"}

_STUCK: Final = {
    "UPDATE_ROLLBACK_FAILED": "an update failed, and so did going back from it ({said}). Next: mend what the events of "
    "stack {stack} name, then aws cloudformation continue-update-rollback --stack-name {stack}, and this command again",
    "DELETE_FAILED": "its deletion was begun and failed ({said}). Next: finish it with "
    "clickstream deploy down --only {part}, and then this command again",
}


class Later(NamedTuple):
    """The value of an output that is not there yet."""

    part: str
    output: str

    def __str__(self) -> str:
        return f"({self.output} of {self.part}, once it is there)"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A stack as it should be."""

    part: str
    stack: str
    body: str
    parameters: Mapping[str, str | Later]
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, str]:
        """The parameters whose value can be told today."""
        return {name: value for name, value in self.parameters.items() if isinstance(value, str)}


@dataclass(frozen=True, slots=True)
class Found:
    """A stack as it is."""

    status: str
    body: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    why: str = ""


class Change(NamedTuple):
    """What happens to one resource."""

    what: What
    name: str
    type: str

    @property
    def loses_data(self) -> bool:
        """Whether something that cannot be rebuilt goes away with it."""
        return self.what in ("replace", "delete") and self.type in template.HOLDS_DATA


@dataclass(frozen=True, slots=True)
class Step:
    """What to do about one stack. `changes` is None as long as only CloudFormation can tell."""

    action: Action
    wanted: Wanted
    changes: tuple[Change, ...] | None = ()
    why: str = ""

    @property
    def nothing(self) -> bool:
        """Whether all is as it should be."""
        return self.action == "keep" or (self.action == "update" and self.changes == ())


@dataclass(frozen=True, slots=True)
class Wiring:
    """Where the values of parameters come from."""

    environment: Environment
    parts: Sequence[str]  # to work on
    bodies: Mapping[str, str]  # the templates of all parts
    there: Mapping[str, Found]  # the stacks of all parts, by part
    keys: Mapping[str, str]  # of what is uploaded, by parameter

    def wanted(self, part: str) -> Wanted:
        """Return a part's stack as it should be.

        The environment's file comes first; then a parameter named like an output of an earlier part gets that output;
        then come the keys of what is uploaded, and the template's default. One that gets none of these is `Refused`.
        """
        values: dict[str, str | Later] = {}
        for name, said in template.parameters(self.bodies[part]).items():
            value = self._value(part, name, said)
            if value is not None:
                values[name] = value
        tags = {**self.environment.tags, ENVIRONMENT_TAG: self.environment.name, PART_TAG: part}
        return Wanted(part, stack_name(self.environment.name, part), self.bodies[part], values, tags)

    def _value(self, part: str, name: str, said: Mapping[str, Any]) -> str | Later | None:
        given = self.environment.parameters.get(part, {})
        sources = [one for one in NAMES[: NAMES.index(part)] if name in template.outputs(self.bodies.get(one, ""))]
        live = [one for one in sources if one in self.parts or name in self._outputs(one)]
        if name == "Environment":
            return self.environment.name
        if name in given:
            return given[name]
        if live:
            value = self._outputs(live[-1]).get(name)
            return Later(live[-1], name) if value is None else value
        if name in self.keys or "Default" in said:
            return self.keys.get(name)
        if sources:
            raise Refused(
                f"{part} needs {name}, an output of {sources[-1]}, which is not there. "
                f"Next: clickstream deploy up --environment {self.environment.name} --only {sources[-1]},{part}"
            )
        raise Refused(
            f"{self.environment.file}: {part} needs a value for {name} "
            f"({said.get('Description', 'which has no default')}). "
            f"Next: write it there, as parameters: {{{part}: {{{name}: …}}}}"
        )

    def _outputs(self, part: str) -> Mapping[str, str]:
        return self.there[part].outputs if part in self.there else {}


def decide(wanted: Wanted, found: Found | None) -> Step:
    """Say what to do about a stack."""
    if found is None or found.status == "DELETE_COMPLETE":
        return Step("create", wanted, _created(wanted))
    if found.status in _NEVER_LIVED:
        return Step("recreate", wanted, _created(wanted), f"its creation ended in {found.status}")
    if found.status.endswith("_IN_PROGRESS"):
        return Step("wait", wanted, None, f"AWS is at work on it: {found.status}")
    if found.status in _STUCK:
        why = _STUCK[found.status].format(
            said=found.why or "AWS does not say why", stack=wanted.stack, part=wanted.part
        )
        return Step("stuck", wanted, None, why)
    same = found.status in _SETTLED and _same(wanted, found)
    return Step("keep", wanted) if same else Step("update", wanted, None)


def _same(wanted: Wanted, found: Found) -> bool:
    """Compare with what was deployed; a parameter that is not given has its default."""
    said = template.parameters(wanted.body)
    full = {name: wanted.parameters.get(name, str(what.get("Default", ""))) for name, what in said.items()}
    same_text = wanted.body.strip() == found.body.strip()
    return same_text and full == dict(found.parameters) and dict(wanted.tags) == dict(found.tags)


def _created(wanted: Wanted) -> tuple[Change, ...]:
    values = {name: str(value) for name, value in wanted.parameters.items()}
    return tuple(Change("create", one.name, one.type) for one in template.resources(wanted.body, values))


def with_changes(step: Step, changes: Sequence[Change]) -> Step:
    """Return the step with what CloudFormation says it comes to."""
    return replace(step, changes=tuple(changes))


def previous(step: Step, found: Found) -> dict[str, str | None]:
    """Return the parameters for a change set; None is "as it was", for values that are not there yet."""
    values: dict[str, str | None] = {}
    for name, value in step.wanted.parameters.items():
        if isinstance(value, str):
            values[name] = value
        elif name in found.parameters:
            values[name] = None
    return values


def awaited(step: Step, found: Found) -> list[str]:
    """Name the parameters without which CloudFormation cannot be asked: new ones, whose values are not there yet."""
    values = step.wanted.parameters
    return [name for name, value in values.items() if isinstance(value, Later) and name not in found.parameters]


def refuse_to_lose(steps: Sequence[Step]) -> None:
    """Raise `Refused` if a step would replace or delete what holds data."""
    lost = [
        f"{one.name} ({one.type}) of {step.wanted.part}"
        for step in steps
        for one in step.changes or ()
        if one.loses_data
    ]
    if lost:
        raise Refused(
            f"this would lose the data in {', '.join(lost)}. Next: take the change back, or say --delete-data "
            "if the data may go"
        )


def bodies(folder: Path) -> dict[str, str]:
    """Read the templates of all parts that have one; `Refused` names one that cannot be read."""
    found = {}
    for file in (folder / f"{name}.yaml" for name in NAMES):
        if file.is_file():
            found[file.stem] = file.read_text()
            try:
                template.parse(found[file.stem])
            except Refused as error:
                raise Refused(f"{file}: {error}") from None
    return found
