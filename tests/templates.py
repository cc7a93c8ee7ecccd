"""CloudFormation templates as they would reach AWS, with made-up values for what is decided later."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cfnlint.decode import decode

FOLDER = Path(__file__).parents[1] / "deploy" / "templates"
FILES = sorted(FOLDER.glob("*.yaml"))
ORDER = (
    *("artifacts", "network", "data", "streams", "archive", "job", "lambdas", "scaling", "front", "catalog"),
    *("athena", "redshift", "quicksight", "watch"),
)
OPTIONAL = {"athena", "redshift", "quicksight"}
DECIDED = {  # what has no default, and comes from the driver or the environment's configuration
    "Environment": "prod",
    "JobKey": "code/job-0123.zip",
    "NamesLambdaKey": "code/names-0123.zip",
    "OffersLambdaKey": "code/offers-0123.zip",
    "ScalingLambdaKey": "code/scaling-0123.zip",
    "FlattenScriptKey": "code/flatten-0123.py",
    "QuickSightPrincipalArn": "arn:aws:quicksight:eu-central-1:123456789012:user/default/somebody",
}

_PSEUDO = {
    "AWS::AccountId": "123456789012",
    "AWS::NoValue": None,
    "AWS::Partition": "aws",
    "AWS::Region": "eu-central-1",
    "AWS::StackId": "arn:aws:cloudformation:eu-central-1:123456789012:stack/clickstream-prod/0123",
    "AWS::StackName": "clickstream-prod",
    "AWS::URLSuffix": "amazonaws.com",
}


@lru_cache
def read(file: Path) -> dict[str, Any]:
    """Read a template, with short forms such as !Ref written out. The answer is shared: leave it as it is."""
    template, faults = decode(str(file))
    assert not faults, faults
    return template


def walk(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield everything in a template with where it is."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, (*path, str(key)))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from walk(inner, (*path, place))


class Rendered:
    """A template whose functions are worked out. What AWS alone can know looks like it: an ARN for an …Arn."""

    def __init__(self, template: Mapping[str, Any], **values: str) -> None:
        self._template = template
        self._values = {
            name: values.get(name, DECIDED.get(name, str(said.get("Default", _made_up(name, said["Type"])))))
            for name, said in template.get("Parameters", {}).items()
        }

    def resources(self) -> dict[str, dict[str, Any]]:
        """Return the resources that would be created, by logical id."""
        return {
            name: {"Type": said["Type"], "Properties": self(said.get("Properties", {}))}
            for name, said in self._template["Resources"].items()
            if "Condition" not in said or self._holds({"Condition": said["Condition"]})
        }

    def outputs(self) -> dict[str, Any]:
        """Return the outputs' values."""
        return {name: self(said["Value"]) for name, said in self._template.get("Outputs", {}).items()}

    def __call__(self, value: Any) -> Any:
        """Work out a value; what is AWS::NoValue disappears from lists and mappings."""
        if isinstance(value, list):
            return [one for one in map(self, value) if one is not None]
        if not isinstance(value, dict):
            return str(value) if isinstance(value, str) else value  # cfn-lint's texts know their line
        if len(value) == 1:
            [(function, argument)] = value.items()
            if function == "Ref" or function.startswith("Fn::"):
                return self._function(function.removeprefix("Fn::"), argument)
        return {str(key): inner for key, said in value.items() if (inner := self(said)) is not None}

    def _function(self, name: str, argument: Any) -> Any:
        match name:
            case "Ref":
                return self._ref(argument)
            case "GetAtt":
                return self._attribute(*(argument if isinstance(argument, list) else argument.split(".", 1)))
            case "Sub":
                text, known = argument if isinstance(argument, list) else (argument, {})
                return re.sub(r"\$\{(!?)([^}]+)\}", lambda found: self._substitute(found, known), text)
            case "Join":
                separator, words = argument
                return separator.join(str(self(word)) for word in self(words))
            case "Split":
                return self(argument[1]).split(argument[0])
            case "Select":
                return self(argument[1])[int(argument[0])]
            case "If":
                return self(argument[1 if self._holds({"Condition": argument[0]}) else 2])
            case "FindInMap":
                first, second, third = (self(one) for one in argument)
                return self._template["Mappings"][first][second][third]
            case "GetAZs":
                return [f"eu-central-1{letter}" for letter in "abc"]
            case "Cidr":
                whole = ipaddress.ip_network(self(argument[0]))
                return [str(net) for net in whole.subnets(new_prefix=32 - int(argument[2]))][: int(argument[1])]
        raise NotImplementedError(name)

    def _ref(self, name: str) -> Any:
        if name in _PSEUDO:
            return _PSEUDO[name]
        if name not in self._values:
            return f"{name.lower()}-0123"
        value = self._values[name]
        kind = self._template["Parameters"][name]["Type"]
        return value.split(",") if kind.startswith(("List<", "CommaDelimitedList")) else value

    def _attribute(self, resource: str, attribute: str) -> str:
        kind = self._template["Resources"][resource]["Type"].split("::")[1].lower()
        return _arn(kind, resource) if attribute.endswith("Arn") else f"{resource}.{attribute}".lower()

    def _substitute(self, found: "re.Match[str]", known: Mapping[str, Any]) -> str:
        literal, name = found.groups()
        if literal:
            return f"${{{name}}}"
        if name in known:
            return str(self(known[name]))
        return str(self._attribute(*name.split(".", 1)) if "." in name else self._ref(name))

    def _holds(self, expression: Any) -> bool:
        [(function, argument)] = expression.items()
        match function:
            case "Condition":
                return self._holds(self._template["Conditions"][argument])
            case "Fn::Equals":
                left, right = (str(self(one)) for one in argument)
                return left == right
            case "Fn::Not":
                return not self._holds(argument[0])
            case "Fn::And":
                return all(map(self._holds, argument))
            case "Fn::Or":
                return any(map(self._holds, argument))
        raise NotImplementedError(function)


def _made_up(name: str, kind: str) -> str:
    if kind.startswith("List<"):
        return ",".join(f"{name.lower()}-{number}" for number in range(3))
    if name.endswith("SecretArn"):
        return _arn("secretsmanager", "secret:rds!cluster-0-1-2-3-4-AbCdEf")
    if name.endswith("Arn"):
        return _arn("kms" if name.endswith("KeyArn") else "iam", name)
    return f"{name.lower()}-0123"


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:eu-central-1:123456789012:{resource}"
