"""What a CloudFormation template says of itself: its parameters, its outputs, and the resources it would create."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import yaml

from clickstream.errors import Refused

HOLDS_DATA: Final = frozenset(
    {
        "AWS::S3::Bucket",
        "AWS::Kinesis::Stream",
        "AWS::RDS::DBCluster",
        "AWS::DynamoDB::Table",
        "AWS::RedshiftServerless::Namespace",
    }
)
"""What a replacement or a deletion would lose for good. Redis is not among them, nor are the instances of a cluster."""


class Resource(NamedTuple):
    """A resource of a template by its name there."""

    name: str
    type: str


class _Loader(yaml.CSafeLoader):
    """YAML with CloudFormation's short forms: `!Ref X` is {"Ref": "X"}.

    libyaml's, since PyYAML's own scanner stumbles over a question mark within brackets, as in {at: cron(5 * * * ? *)}.
    """


def _short_form(loader: yaml.CSafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix in ("Ref", "Condition"):
        return {suffix: value}
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)
_Loader.yaml_implicit_resolvers = {  # a date such as 2012-10-17 stays the text that it is to CloudFormation
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@lru_cache(maxsize=64)
def parse(body: str) -> Mapping[str, Any]:
    """Read a template; what is none is `Refused`. The answer is shared: leave it as it is."""
    try:
        read = yaml.load(body, _Loader)  # noqa: S506  # a SafeLoader with short forms
    except yaml.YAMLError as error:
        raise Refused(f"a template is not YAML: {error}") from None
    if not isinstance(read, dict) or not isinstance(read.get("Resources"), dict):
        raise Refused("a template has no Resources")
    return read


def parameters(body: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the template's parameters with what it says of each."""
    return parse(body).get("Parameters") or {}


def outputs(body: str) -> frozenset[str]:
    """Return the names of what the template hands on; a template that is not there has none."""
    return frozenset(parse(body).get("Outputs") or ()) if body else frozenset()


def resources(body: str, values: Mapping[str, str]) -> list[Resource]:
    """List what would be created with these parameters; what a condition leaves out is left out."""
    template = parse(body)
    known = {name: str(said["Default"]) for name, said in parameters(body).items() if "Default" in said} | dict(values)
    conditions = template.get("Conditions") or {}
    return [
        Resource(name, said["Type"])
        for name, said in template["Resources"].items()
        if "Condition" not in said or _holds({"Condition": said["Condition"]}, conditions, known)
    ]


def _holds(expression: Any, conditions: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    [(function, argument)] = expression.items()
    match function:
        case "Condition":
            return _holds(conditions[argument], conditions, values)
        case "Fn::Equals":
            left, right = (_value(one, values) for one in argument)
            return left == right
        case "Fn::Not":
            return not _holds(argument[0], conditions, values)
        case "Fn::And":
            return all(_holds(one, conditions, values) for one in argument)
        case "Fn::Or":
            return any(_holds(one, conditions, values) for one in argument)
    raise Refused(f"a template's condition uses {function}, which is none of Equals, Not, And, Or, Condition")


def _value(expression: Any, values: Mapping[str, str]) -> str:
    if isinstance(expression, dict):
        [(function, argument)] = expression.items()
        if function == "Ref":
            return values.get(argument, "")
        if function == "Fn::Join":
            separator, words = argument
            found = _value(words, values) if isinstance(words, dict) else None
            return found if found is not None else separator.join(_value(word, values) for word in words)
        return str(expression)  # known to AWS alone
    return str(expression).lower() if isinstance(expression, bool) else str(expression)


def complaint(said: Mapping[str, Any], value: str) -> str | None:
    """Say what is wrong with a parameter's value, as CloudFormation would, or None."""
    allowed = [_value(one, {}) for one in said.get("AllowedValues") or ()]
    if allowed and value not in allowed:
        return f"it is one of {', '.join(allowed)}"
    pattern = said.get("AllowedPattern")
    if pattern and not re.fullmatch(pattern, value):
        return said.get("ConstraintDescription") or f"it must look like {pattern}"
    if said.get("Type") == "Number":
        return _number_complaint(said, value)
    if len(value) < int(said.get("MinLength", 0)):
        return f"it has at least {said['MinLength']} characters"
    if "MaxLength" in said and len(value) > int(said["MaxLength"]):
        return f"it has at most {said['MaxLength']} characters"
    return None


def _number_complaint(said: Mapping[str, Any], value: str) -> str | None:
    try:
        number = float(value)
    except ValueError:
        return "it is a number"
    if "MinValue" in said and number < float(said["MinValue"]):
        return f"it is at least {said['MinValue']}"
    if "MaxValue" in said and number > float(said["MaxValue"]):
        return f"it is at most {said['MaxValue']}"
    return None
