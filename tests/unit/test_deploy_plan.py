"""What there is to do, decided from templates and stacks that exist only in these tests."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.servers import PROJECT
from clickstream.errors import Refused
from deploy import config, explain, plan, template
from deploy.artifacts import FILES
from deploy.config import Environment
from deploy.derived import TEMPLATES
from deploy.parts import NAMES, PARTS, selected
from deploy.plan import Change, Found, Later, Step, Wanted, Wiring

DEV = Environment(name="dev", file=Path("dev.yaml"), region="eu-central-1")

STREAMS = """
Parameters:
  Environment: {Type: String}
  Shards: {Type: Number, Default: 1}
  Mode: {Type: String, Default: PROVISIONED, AllowedValues: [PROVISIONED, ON_DEMAND]}
Conditions:
  OnDemand: !Equals [!Ref Mode, ON_DEMAND]
  Counted: !Not [!Condition OnDemand]
Resources:
  Clicks: {Type: AWS::Kinesis::Stream}
  Alarm: {Type: AWS::CloudWatch::Alarm, Condition: Counted}
  Policy: {Type: AWS::IAM::Policy, Properties: {PolicyDocument: {Version: 2012-10-17}}}
Outputs:
  ClicksStreamName: {Value: !Ref Clicks}
"""
JOB = """
Parameters:
  Environment: {Type: String}
  ClicksStreamName: {Type: String}
  JobKey: {Type: String}
Resources:
  Job: {Type: AWS::KinesisAnalyticsV2::Application}
"""
BODIES = {"streams": STREAMS, "job": JOB}
STREAMS_THERE = Found(
    "CREATE_COMPLETE",
    STREAMS,
    {"Environment": "dev", "Shards": "1", "Mode": "PROVISIONED"},
    {"ClicksStreamName": "clickstream-dev-clicks"},
    {"clickstream:environment": "dev", "clickstream:part": "streams"},
)


def wanted(
    part: str,
    *,
    there: Mapping[str, Found] | None = None,
    parameters: Mapping[str, Mapping[str, str]] | None = None,
    parts: tuple[str, ...] = ("streams", "job"),
    keys: Mapping[str, str] | None = None,
    bodies: Mapping[str, str] = BODIES,
) -> Wanted:
    environment = Environment(name="dev", file=Path("dev.yaml"), region="eu-central-1", parameters=parameters or {})
    return Wiring(environment, parts, bodies, there or {}, keys or {"JobKey": "code/job-1.zip"}).wanted(part)


def test_deciding_loads_neither_boto3_nor_botocore() -> None:
    program = "import sys, deploy.plan, deploy.cost, deploy.explain; print({'boto3', 'botocore'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_what_is_not_there_is_created_resource_by_resource() -> None:
    step = plan.decide(wanted("streams"), None)

    assert step.action == "create"
    assert step.changes == (
        Change("create", "Clicks", "AWS::Kinesis::Stream"),
        Change("create", "Alarm", "AWS::CloudWatch::Alarm"),
        Change("create", "Policy", "AWS::IAM::Policy"),
    )


def test_a_resource_whose_condition_does_not_hold_is_not_in_the_plan() -> None:
    step = plan.decide(wanted("streams", parameters={"streams": {"Mode": "ON_DEMAND"}}), None)

    assert [change.name for change in step.changes or ()] == ["Clicks", "Policy"]


def test_what_is_as_wanted_is_kept_and_needs_no_question() -> None:
    step = plan.decide(wanted("streams"), STREAMS_THERE)

    assert step.action == "keep"
    assert step.nothing


@pytest.mark.parametrize(
    ("parameters", "body"),
    [
        pytest.param({"streams": {"Shards": "2"}}, STREAMS, id="another value"),
        pytest.param({}, STREAMS.replace("Default: 1", "Default: 2"), id="another default"),
        pytest.param({}, STREAMS + "  More: {Value: x}\n", id="another template"),
    ],
)
def test_what_differs_is_updated_and_cloudformation_knows_what_that_changes(parameters: Any, body: str) -> None:
    step = plan.decide(wanted("streams", parameters=parameters, bodies=BODIES | {"streams": body}), STREAMS_THERE)

    assert (step.action, step.changes, step.nothing) == ("update", None, False)
    assert plan.with_changes(step, []).nothing


def test_another_tag_is_a_change() -> None:
    tagged = Environment(name="dev", file=Path("dev.yaml"), region="eu-central-1", tags={"team": "shop"})

    step = plan.decide(Wiring(tagged, ("streams",), BODIES, {}, {}).wanted("streams"), STREAMS_THERE)

    assert step.action == "update"


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "REVIEW_IN_PROGRESS"])
def test_a_stack_that_never_lived_is_created_anew(status: str) -> None:
    assert plan.decide(wanted("streams"), Found(status)).action == "recreate"


@pytest.mark.parametrize(
    "status", ["CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "DELETE_IN_PROGRESS"]
)
def test_a_stack_that_aws_is_at_work_on_is_waited_for(status: str) -> None:
    assert plan.decide(wanted("streams"), Found(status)).action == "wait"


def test_after_an_update_that_was_rolled_back_cloudformation_is_asked_again() -> None:
    there = Found("UPDATE_ROLLBACK_COMPLETE", STREAMS, STREAMS_THERE.parameters)

    assert plan.decide(wanted("streams"), there).action == "update"


@pytest.mark.parametrize(
    ("status", "then"),
    [("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"), ("DELETE_FAILED", "deploy down --only streams")],
)
def test_a_stack_that_is_stuck_says_why_and_what_to_do(status: str, then: str) -> None:
    step = plan.decide(wanted("streams"), Found(status, why="the key is gone"))

    assert step.action == "stuck"
    assert "the key is gone" in step.why
    assert then in step.why


def test_a_parameter_named_like_an_output_of_an_earlier_part_gets_it() -> None:
    assert wanted("job", there={"streams": STREAMS_THERE}).parameters == {
        "Environment": "dev",
        "ClicksStreamName": "clickstream-dev-clicks",
        "JobKey": "code/job-1.zip",
    }


def test_an_output_that_is_yet_to_come_is_later_and_the_rest_is_known() -> None:
    found = wanted("job")

    assert found.parameters["ClicksStreamName"] == Later("streams", "ClicksStreamName")
    assert found.known == {"Environment": "dev", "JobKey": "code/job-1.zip"}
    assert plan.decide(found, None).action == "create"


def test_a_later_value_is_asked_for_as_it_was() -> None:
    step = Step("update", wanted("job"))
    there = Found("CREATE_COMPLETE", JOB, {"ClicksStreamName": "old", "JobKey": "code/job-0.zip"})

    assert plan.previous(step, there) == {
        "Environment": "dev",
        "ClicksStreamName": None,
        "JobKey": "code/job-1.zip",
    }


def test_the_templates_that_are_shipped_get_all_their_parameters_in_the_environment_that_is_shipped() -> None:
    bodies = plan.bodies(TEMPLATES)
    dev = config.read("dev")
    parts = [part for part in selected(None, dev.without) if part in bodies]
    wiring = Wiring(dev, parts, bodies, {}, dict.fromkeys(FILES, "code/x"))

    steps = [plan.decide(wiring.wanted(part), None) for part in parts]

    assert {step.action for step in steps} <= {"create"}
    assert all(step.changes for step in steps)


def test_the_environments_file_has_the_say_over_an_output() -> None:
    found = wanted("job", there={"streams": STREAMS_THERE}, parameters={"job": {"ClicksStreamName": "of another team"}})

    assert found.parameters["ClicksStreamName"] == "of another team"


def test_an_output_of_a_part_that_is_neither_there_nor_asked_for_is_refused_with_the_command() -> None:
    with pytest.raises(Refused, match="deploy up --environment dev --only streams,job"):
        wanted("job", parts=("job",))
    with pytest.raises(Refused, match="--only streams,job"):
        wanted("job", parts=("job",), there={"streams": Found("ROLLBACK_COMPLETE")})


def test_a_parameter_that_nobody_knows_is_refused_with_the_file_and_the_line_to_write() -> None:
    with pytest.raises(Refused, match=r"dev.yaml: job needs a value for JobKey .*parameters: \{job: \{JobKey: …\}\}"):
        wanted("job", there={"streams": STREAMS_THERE}, keys={"OffersLambdaKey": "x"})


@pytest.mark.parametrize("what", ["replace", "delete"])
def test_losing_a_stream_is_refused_and_changing_or_making_one_is_not(what: Any) -> None:
    step = plan.decide(wanted("streams"), Found("UPDATE_ROLLBACK_COMPLETE"))
    stream = "AWS::Kinesis::Stream"

    with pytest.raises(Refused, match=r"Clicks \(AWS::Kinesis::Stream\) of streams.*--delete-data"):
        plan.refuse_to_lose([plan.with_changes(step, [Change(what, "Clicks", stream)])])
    plan.refuse_to_lose(
        [
            plan.with_changes(step, [Change("change", "Clicks", stream), Change("create", "Other", stream)]),
            plan.with_changes(step, [Change(what, "Role", "AWS::IAM::Role")]),
        ]
    )


def test_short_forms_are_read_as_what_they_stand_for_and_dates_stay_text() -> None:
    body = "Resources: {A: {P: {A: !GetAtt B.C.D, B: !Sub x, C: !Join [a, [!Ref D]], V: 2012-10-17}}}"

    properties = template.parse(body)["Resources"]["A"]["P"]

    assert properties == {
        "A": {"Fn::GetAtt": ["B", "C.D"]},
        "B": {"Fn::Sub": "x"},
        "C": {"Fn::Join": ["a", [{"Ref": "D"}]]},
        "V": "2012-10-17",
    }


def test_a_template_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "streams.yaml").write_text("Resources: {")
    with pytest.raises(Refused, match=r"streams.yaml: a template is not YAML"):
        plan.bodies(tmp_path)

    (tmp_path / "streams.yaml").write_text("Outputs: {}")
    with pytest.raises(Refused, match=r"streams.yaml: a template has no Resources"):
        plan.bodies(tmp_path)


def test_a_question_mark_within_brackets_is_text() -> None:
    assert template.parse("Resources: {A: {At: cron(5 * * * ? *)}}")["Resources"] == {"A": {"At": "cron(5 * * * ? *)"}}


@pytest.mark.parametrize(
    ("said", "value", "complaint"),
    [
        ({"Type": "String", "AllowedValues": ["a", True]}, "true", None),
        ({"Type": "String", "AllowedValues": ["a", "b"]}, "c", "a, b"),
        ({"Type": "String", "AllowedPattern": "[a-z]+"}, "A", "[a-z]+"),
        ({"Type": "Number", "MinValue": 1, "MaxValue": 9}, "0", "at least 1"),
        ({"Type": "Number", "MinValue": 1, "MaxValue": 9}, "10", "at most 9"),
        ({"Type": "Number"}, "many", "a number"),
        ({"Type": "String", "MinLength": 2}, "a", "at least 2"),
        ({"Type": "String", "MaxLength": 2}, "abc", "at most 2"),
        ({"Type": "CommaDelimitedList"}, "a,b", None),
    ],
)
def test_a_value_that_cloudformation_would_refuse_is_complained_about_before(
    said: Any, value: str, complaint: str | None
) -> None:
    found = template.complaint(said, value)

    if complaint is None:
        assert found is None
    else:
        assert complaint in str(found)


def test_parts_are_worked_on_in_their_order_whatever_the_order_asked_for() -> None:
    assert selected("job, streams") == ("streams", "job")
    assert selected(None, ("redshift", "quicksight")) == tuple(n for n in NAMES if n not in ("redshift", "quicksight"))
    assert [part.name for part in PARTS if part.optional] == ["athena", "redshift", "quicksight"]


@pytest.mark.parametrize(("only", "words"), [("steams", "did you mean streams"), (",", "names no part")])
def test_a_part_that_there_is_not_is_refused_with_the_nearest(only: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        selected(only)


def event(name: str, status: str, reason: str = "") -> dict[str, str]:
    return {
        "LogicalResourceId": name,
        "ResourceType": "AWS::S3::Bucket",
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
    }


def test_a_failure_is_explained_by_what_failed_first_and_not_by_what_was_cancelled() -> None:
    events = [
        event("Role", "CREATE_COMPLETE"),
        event("Other", "CREATE_FAILED", "Resource creation cancelled"),
        event("Lake", "CREATE_FAILED", "my-lake already exists"),
        event("Stack", "CREATE_FAILED", "The following resource(s) failed to create: [Lake]"),
    ]

    said = explain.why(events, "the stack ended in ROLLBACK_COMPLETE")

    assert said.startswith("Lake (AWS::S3::Bucket) failed, and AWS says: my-lake already exists. Next: ")
    assert "delete or rename it" in said


def test_a_failure_without_a_reason_says_where_to_look() -> None:
    assert "CloudFormation console" in explain.why([event("Lake", "CREATE_FAILED")], "the stack ended in CREATE_FAILED")


@pytest.mark.parametrize(
    ("words", "then"),
    [
        ("User: arn:… is not authorized to perform: kinesis:CreateStream", "permission"),
        ("LimitExceededException: shard limit", "Service Quotas"),
        ("The bucket you tried to delete is not empty", "--delete-data"),
        ("Rate exceeded", "in a minute"),
        ("Value of property X must be a string", "mend it"),
    ],
)
def test_what_aws_says_has_a_next_step(words: str, then: str) -> None:
    assert then in explain.advice(words)
