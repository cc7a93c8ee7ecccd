"""Looks, before anything is created, whether it can be: credentials, region, quotas, versions, connectivity."""

import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from clickstream.errors import ClickstreamError, Refused
from deploy import cost, plan, template
from deploy.aws import Clients, answering, code, words
from deploy.config import Environment
from deploy.derived import TEMPLATES
from deploy.parts import selected

Verdict = Literal["ok", "look", "bad"]

_PEAK: Final = 1.5  # times the average

_REACHED: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("cloudformation", "list_stacks", {}),
    ("s3", "list_buckets", {}),
    ("kinesis", "list_streams", {}),
    ("firehose", "list_delivery_streams", {}),
    ("kinesisanalyticsv2", "list_applications", {}),
    ("lambda", "list_functions", {}),
    ("apigateway", "get_rest_apis", {}),
    ("wafv2", "list_web_acls", {"Scope": "REGIONAL"}),
    ("elasticache", "describe_replication_groups", {}),
    ("rds", "describe_db_clusters", {}),
    ("secretsmanager", "list_secrets", {}),
    ("glue", "get_databases", {}),
    ("logs", "describe_log_groups", {}),
    ("cloudwatch", "describe_alarms", {}),
    ("resourcegroupstaggingapi", "get_resources", {}),
)
"""A question to each service that costs nothing: does it answer here, and us?"""


class _Quota(NamedTuple):
    service: str
    code: str
    about: str
    wanted: float


_QUOTAS: Final = (
    _Quota("vpc", "L-F678F1CE", "VPCs in the region", 1),
    _Quota("lambda", "L-B99A9384", "Lambdas at once", 50),
)


class Check(NamedTuple):
    """What was looked at and found; `then` is the next step, if it takes one."""

    about: str
    verdict: Verdict
    found: str
    then: str = ""


def need_account(clients: Clients, environment: Environment) -> str:
    """Return the account that the credentials are for; `Refused` if the environment is for another one."""
    with answering("asking whose credentials these are"):
        account = str(clients("sts").get_caller_identity()["Account"])
    if environment.account not in (None, account):
        raise Refused(
            f"these credentials are for account {account}, but {environment.file} says account {environment.account}. "
            "Next: choose another profile, AWS_PROFILE=…"
        )
    return account


def examine(environment: Environment, clients: Clients, jar: Path) -> Iterator[Check]:
    """Look at one thing after the other; without credentials, only at what takes none.

    A quota that cannot be asked for is worth a look; one that is too small is bad.
    """
    yield from _versions(jar)
    yield from _configuration(environment)
    who = _guarded("credentials", lambda: _credentials(environment, clients))
    yield who
    if who.verdict == "bad":
        return
    yield _guarded("region", lambda: _region(clients))
    for service, operation, request in _REACHED:
        yield _reached(clients, service, operation, request)
    yield _guarded("shards", lambda: _shards(environment, clients), "look")
    for quota in _QUOTAS:
        yield _guarded(quota.about, partial(_quota, clients, quota), "look")
    yield _guarded("API requests", lambda: _api(environment, clients), "look")


def _versions(jar: Path) -> Iterator[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    right = sys.version_info[:2] == (3, 11)
    yield Check("Python", "ok" if right else "bad", python, "" if right else "make setup, with Python 3.11")
    yield Check("boto3", "ok", boto3.__version__)
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    yield Check("uv", "ok" if uv else "bad", "there" if uv else "missing", "" if uv else "make setup")
    there = jar.is_file()
    yield Check(
        "the job's jar", "ok" if there else "bad", jar.name if there else "not built", "" if there else "make setup"
    )


def _configuration(environment: Environment) -> Iterator[Check]:
    bodies = plan.bodies(TEMPLATES)
    missing = [part for part in selected(None, environment.without) if part not in bodies]
    if missing:
        yield Check("templates", "bad", f"none for {', '.join(missing)}", "restore deploy/templates")
    else:
        number = sum(len(template.parse(body)["Resources"]) for body in bodies.values())
        yield Check("templates", "ok", f"{len(bodies)} with {number} resources")
    geo = environment.geo_database
    if geo is not None and not geo.is_file():
        yield Check("geo database", "bad", f"no {geo}", "clickstream setup, or another path in the environment's file")
    else:
        yield Check("configuration", "ok", str(environment.file))


def _credentials(environment: Environment, clients: Clients) -> Check:
    account = need_account(clients, environment)
    arn = clients("sts").get_caller_identity()["Arn"]
    if arn.endswith(":root"):
        return Check("credentials", "look", f"the root user of {account}", "use a role or user with fewer rights")
    if environment.account is None:
        return Check(
            "credentials", "ok", f'{arn}; write account: "{account}" into {environment.file.name} to keep to it'
        )
    return Check("credentials", "ok", arn)


def _region(clients: Clients) -> Check:
    ec2 = clients("ec2")
    with answering("asking for the region's zones"):
        zones = ec2.describe_availability_zones(Filters=[{"Name": "zone-type", "Values": ["availability-zone"]}])
    names = [zone["ZoneName"] for zone in zones["AvailabilityZones"] if zone["State"] == "available"]
    if len(names) < 3:
        return Check(
            "region", "bad", f"{clients.region} has {len(names)} zones, and the subnets take 3", "choose another"
        )
    return Check("region", "ok", f"{clients.region}, zones {', '.join(names)}")


def _reached(clients: Clients, service: str, operation: str, request: dict[str, Any]) -> Check:
    try:
        getattr(clients(service), operation)(**request)
    except ClientError as error:
        return Check(
            service,
            "bad",
            f"{code(error)}: {' '.join(words(error).split())}",
            "have whoever administers the account allow it",
        )
    except (BotoCoreError, ClickstreamError) as error:
        return Check(service, "bad", str(error), "look at the network, the proxy, and whether the region has it")
    return Check(service, "ok", "answers")


def _shards(environment: Environment, clients: Clients) -> Check:
    load = cost.Workload(environment.events_per_second)
    wanted = load.shards + load.offer_shards
    with answering("asking for the limits of Kinesis"):
        limits = clients("kinesis").describe_limits()
    free = limits["ShardLimit"] - limits["OpenShardCount"]
    found = f"{limits['OpenShardCount']:,} of {limits['ShardLimit']:,} in use, {wanted:,} wanted"
    if free < wanted:
        return Check("shards", "bad", found, "ask Service Quotas for more shards in Kinesis")
    return Check("shards", "ok", found)


def _api(environment: Environment, clients: Clients) -> Check:
    value = _quota_value(clients, "apigateway", "L-8A5B8E43")
    peak = environment.events_per_second * _PEAK
    found = f"{value:,.0f} a second in the account, {peak:,.0f} at peaks if each event is a request"
    if value < peak:
        return Check("API requests", "look", found, "have clients send batches to POST /events, or ask Service Quotas")
    return Check("API requests", "ok", found)


def _quota(clients: Clients, quota: "_Quota") -> Check:
    value = _quota_value(clients, quota.service, quota.code)
    if value < quota.wanted:
        return Check(
            quota.about, "bad", f"{value:,.0f}, but it takes {quota.wanted:,.0f}", "ask Service Quotas for more"
        )
    return Check(quota.about, "ok", f"up to {value:,.0f}")


def _quota_value(clients: Clients, service: str, quota: str) -> float:
    """Return the account's quota, which is AWS' default as long as nobody has asked for another."""
    client, which = clients("service-quotas"), {"ServiceCode": service, "QuotaCode": quota}
    with answering(f"asking for the quotas of {service}"):
        try:
            answer = client.get_service_quota(**which)
        except ClientError as error:
            if code(error) != "NoSuchResourceException":
                raise
            answer = client.get_aws_default_service_quota(**which)
    return float(answer["Quota"]["Value"])


def _guarded(about: str, check: Callable[[], Check], otherwise: Verdict = "bad") -> Check:
    try:
        return check()
    except ClickstreamError as error:
        found, _, then = " ".join(str(error).split()).partition(". Next: ")
        return Check(about, otherwise, found, then)
