"""What no emulator does with the Lambdas' resources is at least asked for in words that AWS knows."""

from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator

from cli.servers import PROJECT


class Loader(yaml.SafeLoader):
    """Reads a template; what it refers to is the default of the parameter, or else some ARN."""


def _referred(loader: Loader, tag: str, node: yaml.Node) -> Any:
    return {tag: node.value} if isinstance(node, yaml.ScalarNode) else {tag: None}


Loader.add_multi_constructor("!", _referred)


def properties(part: str, name: str) -> dict[str, Any]:
    template = yaml.load((PROJECT / "deploy" / "templates" / f"{part}.yaml").read_text(), Loader)
    defaults = {key: said.get("Default") for key, said in template["Parameters"].items()}

    def resolved(value: Any) -> Any:
        if isinstance(value, dict) and value.keys() <= {"Ref", "GetAtt", "Sub"}:
            default = defaults.get(value.get("Ref", ""))
            return "arn:aws:sqs:eu-central-1:123456789012:some-thing" if default in (None, "") else default
        if isinstance(value, dict):
            return {key: resolved(each) for key, each in value.items()}
        return [resolved(each) for each in value] if isinstance(value, list) else value

    found = resolved(template["Resources"][name]["Properties"])
    assert isinstance(found, dict)
    return found


def faults(service: str, operation: str, request: dict[str, Any]) -> str:
    model = botocore.session.get_session().get_service_model(service)
    report = ParamValidator().validate(request, model.operation_model(operation).input_shape)
    unknown = set(request) - set(model.operation_model(operation).input_shape.members)
    return report.generate_report() + "".join(f"unknown {name}" for name in unknown)


@pytest.mark.parametrize(
    ("part", "name", "service", "operation"),
    [
        ("lambdas", "NamesInvocations", "lambda", "PutFunctionEventInvokeConfig"),
        ("lambdas", "OffersFromStream", "lambda", "CreateEventSourceMapping"),
        ("lambdas", "NamesRuleMayInvoke", "lambda", "AddPermission"),
        ("scaling", "ScalingTopicMayInvoke", "lambda", "AddPermission"),
    ],
)
def test_lambda_knows_what_it_is_asked_for(part: str, name: str, service: str, operation: str) -> None:
    asked = properties(part, name) | ({"StatementId": name} if operation == "AddPermission" else {})

    assert faults(service, operation, asked) == ""


def test_sqs_knows_the_queues_attributes() -> None:
    queue = properties("lambdas", "OffersDlq")
    attributes = {key: str(value) for key, value in queue.items() if key != "QueueName"}
    known = "SqsManagedSseEnabled", "MessageRetentionPeriod"

    assert faults("sqs", "CreateQueue", {"QueueName": queue["QueueName"], "Attributes": attributes}) == ""
    assert set(attributes) <= set(known)
    assert properties("lambdas", "OffersDlqTls")["PolicyDocument"]["Statement"][0]["Effect"] == "Deny"


def test_what_aws_would_refuse_is_a_fault() -> None:
    asked = properties("lambdas", "OffersFromStream")

    assert "unknown Retries" in faults("lambda", "CreateEventSourceMapping", asked | {"Retries": 10})
    assert "MaximumRetryAttempts" in faults(
        "lambda", "CreateEventSourceMapping", asked | {"MaximumRetryAttempts": "ten"}
    )


def test_a_poison_record_cannot_stop_the_stream_for_ever() -> None:
    mapping = properties("lambdas", "OffersFromStream")

    assert mapping["BisectBatchOnFunctionError"] is True
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert 0 < mapping["MaximumRetryAttempts"] < 100
    assert mapping["DestinationConfig"]["OnFailure"]["Destination"]
