"""The parts the platform is made of on AWS, in the order in which they are created: one stack each."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Final, NamedTuple

from clickstream.errors import Refused

PROJECT_NAME: Final = "clickstream"
ENVIRONMENT_TAG: Final = "clickstream:environment"
PART_TAG: Final = "clickstream:part"


class Part(NamedTuple):
    """A template and the stack made from it. One that is optional can be left out by an environment."""

    name: str
    what: str
    optional: bool = False


PARTS: Final = (
    Part("artifacts", "the bucket for zips and scripts"),
    Part("network", "VPC, endpoints, security groups"),
    Part("data", "Redis, Aurora MySQL, secrets"),
    Part("streams", "clicks and offers"),
    Part("archive", "lake and raw buckets, Firehose"),
    Part("job", "the Managed Flink application"),
    Part("lambdas", "name update, offers consumer"),
    Part("scaling", "alarms and the shard scaler"),
    Part("front", "API Gateway and WAF"),
    Part("catalog", "Glue tables, crawlers, flatten job"),
    Part("athena", "workgroup and federated connectors", optional=True),
    Part("redshift", "Redshift Serverless and Spectrum", optional=True),
    Part("quicksight", "QuickSight's data source", optional=True),
    Part("watch", "dashboard, alarms, topic"),
)

NAMES: Final = tuple(part.name for part in PARTS)


def stack_name(environment: str, part: str) -> str:
    """Name a part's stack."""
    return f"{PROJECT_NAME}-{environment}-{part}"


def selected(only: str | None, without: Collection[str] = ()) -> tuple[str, ...]:
    """Return the parts to work on, in order: those of a list such as `streams,job`, or all but those left out."""
    if only is None:
        return tuple(name for name in NAMES if name not in without)
    asked = [name.strip() for name in only.split(",") if name.strip()]
    for name in asked:
        if name not in NAMES:
            raise Refused(f"there is no part {name!r}{nearest(name, NAMES)}. The parts are {', '.join(NAMES)}")
    if not asked:
        raise Refused(f"--only names no part. The parts are {', '.join(NAMES)}")
    return tuple(name for name in NAMES if name in asked)


def nearest(word: str, words: Iterable[str]) -> str:
    """Return ` (did you mean …?)` for the word that looks most like one that is not there, or nothing."""
    found = get_close_matches(word, list(words), n=1)
    return f" (did you mean {found[0]}?)" if found else ""
