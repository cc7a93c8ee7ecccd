"""Why a stack failed: the resource, AWS' words, and the next step."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

_CONSEQUENCE: Final = re.compile(r"Resource (creation|update|deletion) cancelled|^$|The following resource\(s\) failed")

_ADVICE: Final = (
    (r"already exists|AlreadyExists", "something else has that name: delete or rename it"),
    (
        r"not authorized|AccessDenied|UnauthorizedOperation|does not have permission",
        "have the permission given to who deploys",
    ),
    (
        r"[Ll]imit ?Exceeded|quota|maximum number|Maximum number",
        "ask for more at Service Quotas, or delete what is unused",
    ),
    (r"not empty", "empty it: clickstream deploy down --delete-data does"),
    (
        r"[Ii]nsufficient.*[Cc]apacity|not supported in .*[Aa]vailability",
        "choose another size or region in the configuration",
    ),
    (r"NoSuchKey|S3 key does not exist|No such key", "upload it anew: the same command again"),
    (
        r"[Tt]hrottl|Rate exceeded|ServiceUnavailable|Internal ?Failure|timed? ?out",
        "the same command again in a minute",
    ),
    (r"DeletionProtection|deletion protection", "switch it off in the configuration, clickstream deploy up, and again"),
    (r"Unsupported resource type", "this stand-in for AWS does not know it: leave its part out with --only"),
)


def cause(events: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the event, of those given oldest first, that the others followed from."""
    for event in events:
        failed = str(event["ResourceStatus"]).endswith("_FAILED")
        if failed and not _CONSEQUENCE.search(str(event.get("ResourceStatusReason") or "")):
            return event
    return None


def why(events: Iterable[Mapping[str, Any]], fallback: str) -> str:
    """Say what failed, in AWS' words, and what to do; `fallback` if no event says so."""
    event = cause(events)
    if event is None:
        return f"{fallback}. Next: look at the stack's events in the CloudFormation console"
    words = " ".join(str(event["ResourceStatusReason"]).split())
    return (
        f"{event['LogicalResourceId']} ({event['ResourceType']}) failed, and AWS says: {words}. Next: {advice(words)}"
    )


def advice(words: str) -> str:
    """Return what to do about what AWS said."""
    for pattern, then in _ADVICE:
        if re.search(pattern, words):
            return then
    return "mend it in the template or the configuration, and the same command again: it goes on where it stopped"
