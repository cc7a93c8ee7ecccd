"""The front door on this machine: the template that goes to AWS, deployed into localemu."""

import time
from contextlib import closing
from typing import Final

import requests
from botocore.exceptions import BotoCoreError, ClientError

from cli.servers import PROJECT, Localemu
from clickstream.errors import Refused, Unavailable

TEMPLATE: Final = PROJECT / "deploy" / "templates" / "front.yaml"
PATIENCE: Final = 120.0  # seconds


def open_front(localemu: Localemu, stream: str, environment: str = "local", **parameters: str) -> str:
    """Deploy the front door as it is to be on AWS, and return where it takes POSTs; one for each environment.

    What localemu does not know of the template, which is the firewall, it leaves out.
    """
    given = {
        "Environment": environment,
        "ClicksStreamName": stream,
        "ClicksStreamArn": f"arn:aws:kinesis:us-east-1:000000000000:stream/{stream}",
        "StreamKeyArn": "arn:aws:kms:us-east-1:000000000000:key/local",
        **parameters,
    }
    try:
        outputs = _deploy(localemu, given)
    except (BotoCoreError, ClientError) as error:
        raise Unavailable(f"localemu did not take {TEMPLATE.name}: {error}. Next: read {localemu.log}") from error
    return f"{localemu.endpoint}/_aws/execute-api/{outputs['ApiId']}/{outputs['ApiStage']}"


def loopback_session() -> requests.Session:
    """Make an HTTP session for this machine, which no proxy knows the way to."""
    session = requests.Session()
    session.trust_env = False
    return session


def _deploy(localemu: Localemu, parameters: dict[str, str]) -> dict[str, str]:
    stack_name = f"clickstream-{parameters['Environment']}-front"
    with closing(localemu.client("cloudformation")) as client:
        client.create_stack(
            StackName=stack_name,
            TemplateBody=TEMPLATE.read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            stack = client.describe_stacks(StackName=stack_name)["Stacks"][0]
            if stack["StackStatus"] == "CREATE_COMPLETE":
                return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
            if not stack["StackStatus"].endswith("IN_PROGRESS"):
                raise Refused(
                    f"localemu ended deploying {TEMPLATE.name} with {stack['StackStatus']}. Next: read {localemu.log}"
                )
            time.sleep(0.1)
    raise Unavailable(f"localemu did not deploy {TEMPLATE.name} in {PATIENCE:g} s. Next: read {localemu.log}")
