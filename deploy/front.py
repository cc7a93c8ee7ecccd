"""What front.yaml derives: the schemas of its two models, and deployments named after what they deploy."""

import hashlib
import json
import re
from typing import Any, Final

from deploy.event_schema import batch_schema, event_schema

_BLOCK: Final = re.compile(r"^ *# derived: .+\n(?:.*\n)*? *# derived end$", re.MULTILINE)
_DEPLOYED: Final = re.compile(r"^  (\w+):\n    Type: AWS::ApiGateway::(?:Method|GatewayResponse)$", re.MULTILINE)


def deployments(template: str) -> dict[str, Any]:
    """Return a deployment for an API with keys and one for an API without.

    API Gateway serves a deployment, which is a copy of the API as it was, so whatever changes in the API needs a new
    one. CloudFormation makes a new one for a new name.
    """
    names = _names(template)
    depends = _DEPLOYED.findall(template)
    return {
        name: {
            "Type": "AWS::ApiGateway::Deployment",
            "Condition": condition,
            "DependsOn": list(depends),  # a list of its own: CloudFormation knows no YAML aliases
            "Properties": {"RestApiId": {"Ref": "Api"}},
        }
        for condition, name in names.items()
    }


def deployment(template: str) -> dict[str, Any]:
    """Return which of them the stage serves."""
    names = _names(template)
    return {"Fn::If": ["WithKeys", {"Ref": names["WithKeys"]}, {"Ref": names["WithoutKeys"]}]}


def _names(template: str) -> dict[str, str]:
    written = _BLOCK.sub("", template) + json.dumps([event_schema(), batch_schema()])
    digest = hashlib.sha256(written.encode()).hexdigest()[:8]
    return {"WithoutKeys": f"Deployment{digest}", "WithKeys": f"KeyedDeployment{digest}"}
