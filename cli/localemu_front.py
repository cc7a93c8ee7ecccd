"""Starts localemu, under its own Python, as the front door's API Gateway, and mends where it is none.

`python localemu_front.py PORT [KINESIS]`, in a folder of its own. What is changed:

- it listens on 127.0.0.1 alone, which it is told to and does not do;
- what an API puts into Kinesis goes to the Kinesis given, which is the one that the job reads;
- a body that does not fit its model is refused in the words of API Gateway's validator, where localemu has none, and
  so is what is no JSON in UTF-8, which localemu answers with 500 or lets in;
- words within quotes in a gateway response are quoted for JSON;
- a JSONPath is parsed once, not for each event;
- SIGTERM ends it at once: there is nothing to save.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"
SERVICES: Final = "apigateway,cloudformation,iam,kinesis,logs,sts"
_ERROR: Final = re.compile(r'"\$context\.error\.(\w+)"|\$context\.error\.(\w+)')


def words(errors: list[Any]) -> str:
    """Say what jsonschema's errors are as API Gateway does: a missing field by its name, any other by its value."""
    return f"[{', '.join(_words(errors))}]"


def _words(errors: list[Any]) -> Iterator[str]:
    missing: dict[tuple[Any, ...], list[str]] = {}
    for error in errors:
        if error.validator == "required":
            names = missing.setdefault(tuple(error.absolute_path), [])
            names[:] = sorted(name for name in error.validator_value if name not in error.instance)
    for names in missing.values():
        yield f"object has missing required properties ({_json(names)})"
    for error in errors:
        limit, value = error.validator_value, error.instance
        match error.validator:
            case "type":
                allowed = [limit, "integer"] if limit == "number" else [limit]
                yield (
                    f"instance type ({_type(value)}) does not match any allowed primitive type "
                    f"(allowed: {_json(sorted(allowed))})"
                )
            case "enum":
                yield f"instance value ({_json(value)}) not found in enum (possible values: {_json(limit)})"
            case "minimum":
                yield f"numeric instance is lower than the required minimum (minimum: {limit}, found: {value})"
            case "maximum":
                yield f"numeric instance is greater than the required maximum (maximum: {limit}, found: {value})"
            case "minLength":
                yield f"string {_json(value)} is too short (length: {len(value)}, required minimum: {limit})"
            case "maxLength":
                yield f"string {_json(value)} is too long (length: {len(value)}, maximum allowed: {limit})"
            case "minItems":
                yield f"array is too short: must have at least {limit} elements but instance has {len(value)} elements"
            case "maxItems":
                yield f"array is too long: must have at most {limit} elements but instance has {len(value)} elements"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", type(None): "null"}
    return names.get(type(value), "object")


def listen_on_loopback() -> None:
    """Listen where it should, and end where it cannot."""
    from twisted.internet import endpoints  # noqa: PLC0415

    class Endpoint:
        def __init__(self, reactor: Any, port: int) -> None:
            self.reactor, self.port = reactor, port

        def listen(self, factory: Any) -> None:
            self.reactor.listenTCP(self.port, factory, interface=LOOPBACK)

    endpoints.TCP4ServerEndpoint = Endpoint


def put_into(kinesis: str) -> None:
    """Call this Kinesis for an API that calls Kinesis."""
    import requests  # noqa: PLC0415
    from localemu.services.apigateway.next_gen.execute_api.context import EndpointResponse  # noqa: PLC0415
    from localemu.services.apigateway.next_gen.execute_api.integrations.aws import RestApiAwsIntegration  # noqa: PLC0415
    from werkzeug.datastructures import Headers  # noqa: PLC0415

    invoke_its_own = RestApiAwsIntegration.invoke
    session = requests.Session()
    session.trust_env = False  # no proxy knows this machine's servers

    def invoke(self: Any, context: Any) -> Any:
        request = context.integration_request
        asked = self.parse_aws_integration_uri(request["uri"])
        if asked["service_name"] != "kinesis":
            return invoke_its_own(self, context)
        scope = f"local/20260101/{asked['region_name']}/kinesis/aws4_request"
        headers = {
            "Content-Type": request["headers"]["Content-Type"],
            "X-Amz-Target": self.get_action_service_target("kinesis", asked["path"]),
            "X-Amz-Date": "20260101T000000Z",
            "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none",
        }
        answer = session.post(kinesis, data=request["body"], headers=headers, timeout=30)
        return EndpointResponse(body=answer.content, status_code=answer.status_code, headers=Headers(answer.headers))

    RestApiAwsIntegration.invoke = invoke


def validate_in_words() -> None:
    """Refuse a body as API Gateway does."""
    from jsonschema import Draft4Validator  # noqa: PLC0415
    from localemu.services.apigateway.helpers import ModelResolver  # noqa: PLC0415
    from localemu.services.apigateway.next_gen.execute_api.gateway_response import BadRequestBodyError  # noqa: PLC0415
    from localemu.services.apigateway.next_gen.execute_api.handlers import (  # noqa: PLC0415
        gateway_exception,
        method_request,
    )

    def check(method: Any, rest_api: Any, request: Any) -> bool:
        name = (method.get("requestModels") or {}).get("application/json", "Empty")
        schema = ModelResolver(rest_api_container=rest_api, model_name=name).get_resolved_model()
        refusal = BadRequestBodyError(message="Invalid request body")
        try:
            body = json.loads((request.get("body") or b"{}").decode(), parse_constant=_refuse)
        except (ValueError, RecursionError):
            refusal.words = "[the body is not JSON]"
            raise refusal from None
        refusal.words = words(list(Draft4Validator(schema).iter_errors(body)))
        if refusal.words != "[]":
            raise refusal
        return True

    def set_error_context(exception: Any, context: Any) -> None:
        context.context_variables["error"] = {
            "message": exception.message,
            "messageString": exception.message,
            "responseType": exception.type,
            "validationErrorString": getattr(exception, "words", ""),
        }

    def render(template: str, error: dict[str, str]) -> str:
        return _ERROR.sub(lambda found: json.dumps(str(error.get(found[1] or found[2], ""))), template)

    method_request.MethodRequestHandler._is_body_valid = staticmethod(check)
    gateway_exception.GatewayExceptionHandler.set_error_context = staticmethod(set_error_context)
    gateway_exception.GatewayExceptionHandler._render_gateway_template = staticmethod(render)


def be_quick() -> None:
    """Parse a path once, and stop without ado."""
    from localemu.runtime.runtime import LocalemuRuntime  # noqa: PLC0415
    from localemu.services.apigateway.next_gen.execute_api import template_mapping  # noqa: PLC0415

    template_mapping.parse = lru_cache(maxsize=4096)(template_mapping.parse)
    LocalemuRuntime.exit = lambda _, code=0: os._exit(code)


def serve(port: str, services: str, *mends: Callable[[], None]) -> None:
    """Mend it, and serve until SIGTERM."""
    os.environ.update(  # read when localemu is imported
        GATEWAY_LISTEN=f"{LOOPBACK}:{port}",
        LOCALEMU_HOST=f"{LOOPBACK}:{port}",
        SERVICES=services,
        FILESYSTEM_ROOT=os.getcwd(),
    )
    for mend in (listen_on_loopback, *mends, be_quick):
        mend()
    from localemu.runtime.main import main as run  # noqa: PLC0415

    run()


def main(port: str, kinesis: str | None = None) -> None:
    """Serve the front door until SIGTERM."""
    serve(port, SERVICES, *([partial(put_into, kinesis)] if kinesis else []), validate_in_words)


if __name__ == "__main__":
    main(*sys.argv[1:])
