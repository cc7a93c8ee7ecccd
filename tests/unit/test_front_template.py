"""The front door's template, as far as it can be judged by reading it and by what botocore knows of AWS' requests."""

import json
import re
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from cfnlint.decode import cfn_yaml

from deploy import derived, front

FILE = derived.TEMPLATES / "front.yaml"
TEXT = FILE.read_text()
TEMPLATE = cfn_yaml.loads(TEXT)
RESOURCES = TEMPLATE["Resources"]
STREAM = "arn:aws:kinesis:eu-central-1:123456789012:stream/clicks"
GIVEN = {
    "Environment": "dev",
    "ClicksStreamName": "clicks",
    "ClicksStreamArn": STREAM,
    "StreamKeyArn": "arn:aws:kms:eu-central-1:123456789012:key/1",
    "AWS::Region": "eu-central-1",
    "AWS::Partition": "aws",
    "AWS::AccountId": "123456789012",
    "AWS::URLSuffix": "amazonaws.com",
}


def resolved(value: Any) -> Any:
    """Put parameters and made-up ids where CloudFormation would put real ones; every condition holds."""
    match value:
        case {"Ref": name}:
            return known(name)
        case {"Fn::GetAtt": [name, attribute]}:
            return "arn:aws:iam::123456789012:role/made-up" if attribute == "Arn" else f"{name}-{attribute}".lower()
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{([\w:]+)\}", lambda found: str(known(found[1])), text)
        case {"Fn::If": [_, then, _]}:
            return resolved(then)
        case dict():
            return {key: resolved(inner) for key, inner in value.items()}
        case list():
            return [resolved(inner) for inner in value]
    return value


def known(name: str) -> Any:
    parameter = TEMPLATE["Parameters"].get(name, {})
    if name not in GIVEN and parameter.get("Type") == "Number":
        return parameter["Default"]
    return GIVEN.get(name, parameter.get("Default", name.lower()))


def properties(name: str) -> Any:
    return resolved(RESOURCES[name]["Properties"])


def of_type(type_: str) -> list[str]:
    return [name for name, resource in RESOURCES.items() if resource["Type"] == f"AWS::ApiGateway::{type_}"]


def assert_takes(service: str, operation: str, request: Any) -> None:
    """Ask botocore, which refuses a request with an unknown, missing, mistyped or out-of-range parameter."""
    shape = botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()


def lower(request: Any, *, maps: tuple[str, ...] = ()) -> Any:
    """Write CloudFormation's names as API Gateway's requests do; the keys of maps are data."""
    if isinstance(request, list):
        return [lower(one, maps=maps) for one in request]
    if not isinstance(request, dict):
        return request
    names = {key: key[:1].lower() + key[1:] for key in request}
    return {names[key]: value if key in maps else lower(value, maps=maps) for key, value in request.items()}


LIMITS = ("rateLimit", "burstLimit")
MAPS = (
    "RequestParameters",
    "RequestTemplates",
    "ResponseParameters",
    "ResponseTemplates",
    "RequestModels",
    "Variables",
)

# What is refused, and by whom


def test_the_role_may_put_records_into_the_one_stream_and_nothing_else() -> None:
    role = properties("PutRole")
    statements = role["Policies"][0]["PolicyDocument"]["Statement"]

    assert len(role["Policies"]) == 1
    assert "ManagedPolicyArns" not in role
    assert [(one["Action"], one["Resource"]) for one in statements] == [
        (["kinesis:PutRecord", "kinesis:PutRecords"], STREAM),
        ("kms:GenerateDataKey", GIVEN["StreamKeyArn"]),
    ]


def test_every_post_is_validated_and_takes_json_alone() -> None:
    posts = [name for name in of_type("Method") if properties(name)["HttpMethod"] == "POST"]

    assert len(posts) == 2
    for post in map(properties, posts):
        assert post["RequestValidatorId"] == "bodyvalidator"
        assert list(post["RequestModels"]) == list(post["Integration"]["RequestTemplates"]) == ["application/json"]
        assert post["Integration"]["PassthroughBehavior"] == "NEVER"
        declared = {answer["StatusCode"] for answer in post["MethodResponses"]}
        assert {answer["StatusCode"] for answer in post["Integration"]["IntegrationResponses"]} <= declared


def test_nothing_is_logged_of_who_sent_what() -> None:
    stage = properties("Stage")
    logged = json.loads(stage["AccessLogSetting"]["Format"]).values()

    assert all(re.fullmatch(r"\$context\.[\w.]+", value) for value in logged)
    assert not [value for value in logged if re.search("(?i)sourceIp|userAgent|validation|message|body|caller", value)]
    assert {(one["LoggingLevel"], one["DataTraceEnabled"]) for one in stage["MethodSettings"]} == {("OFF", False)}
    acl = properties("WebAcl")
    rules = [acl, *acl["Rules"]]
    assert {rule["VisibilityConfig"]["SampledRequestsEnabled"] for rule in rules} == {False}


@pytest.mark.parametrize(
    ("length", "blocked"),
    [("0", False), ("175000", False), ("4999999", False), ("5000000", True), ("0005000000", True), ("12345678", True)],
)
def test_the_firewall_blocks_bodies_of_5_mb_and_more(length: str, blocked: bool) -> None:
    rule = properties("WebAcl")["Rules"][0]["Statement"]["RegexMatchStatement"]

    assert rule["FieldToMatch"] == {"SingleHeader": {"Name": "content-length"}}
    assert bool(re.search(rule["RegexString"], length)) is blocked


def test_the_firewalls_own_8_kb_for_a_body_only_counts() -> None:
    [common] = [rule for rule in properties("WebAcl")["Rules"] if rule["Name"] == "common"]

    overrides = common["Statement"]["ManagedRuleGroupStatement"]["RuleActionOverrides"]

    assert overrides == [{"Name": "SizeRestrictions_BODY", "ActionToUse": {"Count": {}}}]


# What is deployed


def test_whatever_changes_in_the_api_is_deployed_anew() -> None:
    now = front.deployments(TEXT)

    for was, becomes in [("'OPTIONS,POST'", "'POST'"), ('"failed": 0', '"failed": 1'), ("NEVER", "WHEN_NO_MATCH")]:
        changed = front.deployments(TEXT.replace(was, becomes))
        assert changed.keys().isdisjoint(now)
    assert front.deployments(derived.derived(TEXT)) == now
    assert now.keys() <= RESOURCES.keys()


def test_another_description_of_an_event_is_deployed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = front.deployments(TEXT)
    monkeypatch.setattr(front, "event_schema", dict)

    assert front.deployments(TEXT).keys().isdisjoint(now)


def test_a_deployment_comes_after_all_that_it_copies() -> None:
    copied = {*of_type("Method"), *of_type("GatewayResponse")}

    for name in of_type("Deployment"):
        assert set(RESOURCES[name]["DependsOn"]) == copied
    assert len(copied) == 7


# What AWS would be asked, as botocore knows it


def test_botocore_takes_the_firewall() -> None:
    assert_takes("wafv2", "CreateWebACL", properties("WebAcl"))
    association = properties("WebAclAssociation")
    assert_takes("wafv2", "AssociateWebACL", association)
    assert association["ResourceArn"] == "arn:aws:apigateway:eu-central-1::/restapis/api/stages/stage"


def test_botocore_takes_the_stage_its_throttling_and_its_log() -> None:
    stage = properties("Stage")
    settings, log = stage.pop("MethodSettings"), stage.pop("AccessLogSetting")
    paths = {f"/*/*/throttling/{name}": settings[0][f"Throttling{name[0].upper()}{name[1:]}"] for name in LIMITS}
    paths |= {"/accessLogSettings/destinationArn": log["DestinationArn"], "/accessLogSettings/format": log["Format"]}

    assert_takes("apigateway", "CreateStage", lower(stage, maps=MAPS))
    assert_takes(
        "apigateway",
        "UpdateStage",
        {
            "restApiId": "api",
            "stageName": "dev",
            "patchOperations": [{"op": "replace", "path": path, "value": str(value)} for path, value in paths.items()],
        },
    )
    assert (settings[0]["ResourcePath"], settings[0]["HttpMethod"]) == ("/*", "*")
    assert (settings[0]["ThrottlingRateLimit"], settings[0]["ThrottlingBurstLimit"]) == (2000, 1000)
    assert_takes(
        "apigateway",
        "UpdateAccount",
        {
            "patchOperations": [
                {"op": "replace", "path": "/cloudwatchRoleArn", "value": properties("LogAccount")["CloudWatchRoleArn"]}
            ]
        },
    )
    group = properties("AccessLog")
    assert_takes("logs", "CreateLogGroup", {"logGroupName": group["LogGroupName"]})
    assert_takes(
        "logs",
        "PutRetentionPolicy",
        {"logGroupName": group["LogGroupName"], "retentionInDays": group["RetentionInDays"]},
    )
    assert log["DestinationArn"].endswith(":log-group:accesslog")


@pytest.mark.parametrize(
    ("type_", "operation"),
    [
        ("RestApi", "CreateRestApi"),
        ("Resource", "CreateResource"),
        ("RequestValidator", "CreateRequestValidator"),
        ("GatewayResponse", "PutGatewayResponse"),
        ("Deployment", "CreateDeployment"),
        ("ApiKey", "CreateApiKey"),
        ("UsagePlanKey", "CreateUsagePlanKey"),
    ],
)
def test_botocore_takes_the_plain_parts_of_the_api(type_: str, operation: str) -> None:
    for name in of_type(type_):
        assert_takes("apigateway", operation, lower(properties(name), maps=MAPS))


def test_botocore_takes_the_usage_plan() -> None:
    plan = lower(properties("UsagePlan"))
    plan["name"] = plan.pop("usagePlanName")

    assert_takes("apigateway", "CreateUsagePlan", plan)


def test_botocore_takes_the_models() -> None:
    for name in of_type("Model"):
        model = properties(name)
        assert_takes("apigateway", "CreateModel", lower({**model, "Schema": json.dumps(model["Schema"])}))


def test_botocore_takes_the_methods() -> None:
    for name in of_type("Method"):
        method = properties(name)
        where = {"restApiId": "api", "resourceId": method["ResourceId"], "httpMethod": method["HttpMethod"]}
        integration, answers = method.pop("Integration"), method.pop("MethodResponses")
        responses = integration.pop("IntegrationResponses")
        assert_takes("apigateway", "PutMethod", lower(method, maps=MAPS))
        assert_takes("apigateway", "PutIntegration", {**where, **lower(integration, maps=MAPS)})
        for response in responses:
            assert_takes("apigateway", "PutIntegrationResponse", {**where, **lower(response, maps=MAPS)})
        for answer in answers:
            assert_takes("apigateway", "PutMethodResponse", {**where, **lower(answer, maps=MAPS)})
