"""What CloudFormation would ask of AWS for a resource, checked by botocore's own description of each service.

CloudFormation makes the values fit before it sends them ("3" becomes 3 where a number is asked for); so does `check`.
It goes beyond botocore's validation in one thing: a value that is none of those listed for it is a fault too.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StructureShape
from botocore.validate import ParamValidator

from tests.templates import FILES, Rendered, read

Properties = Mapping[str, Any]
Request = tuple[str, str, dict[str, Any]]  # service, operation, parameters


EVERYTHING = {  # what conditions otherwise leave out
    "AlarmEmail": "someone@example.com",
    "DatabaseReader": "true",
    "EndpointZones": "3",
    "GeoProvider": "ipinfo",
    "InternetAccess": "true",
    "LakeRetentionDays": "400",
    "NatGateway": "true",
    "RedisNodes": "2",
}


@lru_cache
def validated() -> dict[tuple[str, str], list[Request]]:
    """Return each resource of any template for which there are requests, with its requests."""
    return {
        (file.stem, name): asked
        for file in FILES
        for name, said in Rendered(read(file), **EVERYTHING).resources().items()
        if (asked := requests(said["Type"], said["Properties"]))
    }


def requests(kind: str, said: Properties) -> list[Request]:
    """Return the requests that create a resource of this kind; an empty list for a kind not written down here."""
    return list(_CREATES[kind](said)) if kind in _CREATES else []


def check(request: Request) -> list[str]:
    """Return what is wrong with a request, in sentences."""
    service, operation, parameters = request
    shape = _model(service).operation_model(operation).input_shape
    assert isinstance(shape, StructureShape)
    faults: list[str] = []
    fitting = _fit(parameters, shape, operation, faults)
    report = ParamValidator().validate(fitting, shape)
    return faults + ([report.generate_report()] if report.has_errors() else [])


@lru_cache
def _model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


def _fit(value: Any, shape: Shape, where: str, faults: list[str]) -> Any:
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        return {
            name: _fit(inner, shape.members[name], f"{where}.{name}", faults) if name in shape.members else inner
            for name, inner in value.items()
        }
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_fit(inner, shape.member, f"{where}[]", faults) for inner in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {name: _fit(inner, shape.value, f"{where}.{name}", faults) for name, inner in value.items()}
    if shape.type_name == "boolean" and value in ("true", "false"):
        return value == "true"
    if shape.type_name in ("integer", "long") and isinstance(value, str) and value.isdigit():
        return int(value)
    if shape.type_name in ("float", "double") and isinstance(value, (str, int)) and not isinstance(value, bool):
        return float(value)
    if shape.type_name == "string" and isinstance(value, (bool, int, float)):
        value = str(value).lower()
    if getattr(shape, "enum", None) and isinstance(value, str) and value not in shape.enum:
        faults.append(f"{where} is {value!r}, none of {', '.join(shape.enum)}")
    return value


def _as_is(service: str, operation: str, **renamed: str) -> Callable[[Properties], Iterator[Request]]:
    """For a resource whose properties are the request's parameters, apart from those renamed; "" leaves one out."""

    def create(said: Properties) -> Iterator[Request]:
        names = {name: renamed.get(name, name) for name in said}
        yield service, operation, {names[name]: value for name, value in said.items() if names[name]}

    return create


def _lower_camel(service: str, operation: str) -> Callable[[Properties], Iterator[Request]]:
    """For the services whose parameters begin with a small letter."""

    def lower(value: Any) -> Any:
        if isinstance(value, dict):
            return {name[:1].lower() + name[1:]: lower(inner) for name, inner in value.items()}
        return [lower(one) for one in value] if isinstance(value, list) else value

    def create(said: Properties) -> Iterator[Request]:
        yield service, operation, lower(said)

    return create


def _bucket(said: Properties) -> Iterator[Request]:
    name = said["BucketName"]
    yield (
        "s3",
        "CreateBucket",
        {"Bucket": name, "ObjectOwnership": said["OwnershipControls"]["Rules"][0]["ObjectOwnership"]},
    )
    rules = [
        _renamed(rule, ServerSideEncryptionByDefault="ApplyServerSideEncryptionByDefault")
        for rule in said["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    ]
    yield "s3", "PutBucketEncryption", {"Bucket": name, "ServerSideEncryptionConfiguration": {"Rules": rules}}
    blocked = said["PublicAccessBlockConfiguration"]
    yield "s3", "PutPublicAccessBlock", {"Bucket": name, "PublicAccessBlockConfiguration": blocked}
    yield "s3", "PutBucketVersioning", {"Bucket": name, "VersioningConfiguration": said["VersioningConfiguration"]}
    lifecycle = {"Rules": [_lifecycle_rule(rule) for rule in said["LifecycleConfiguration"]["Rules"]]}
    yield "s3", "PutBucketLifecycleConfiguration", {"Bucket": name, "LifecycleConfiguration": lifecycle}


def _lifecycle_rule(said: Properties) -> dict[str, Any]:
    rule = {"ID": said["Id"], "Status": said["Status"], "Filter": {"Prefix": said.get("Prefix", "")}}
    expiration = {}
    if "ExpirationInDays" in said:
        expiration["Days"] = said["ExpirationInDays"]
    if "ExpiredObjectDeleteMarker" in said:
        expiration["ExpiredObjectDeleteMarker"] = said["ExpiredObjectDeleteMarker"]
    if expiration:
        rule["Expiration"] = expiration
    if "Transitions" in said:
        rule["Transitions"] = [_renamed(one, TransitionInDays="Days") for one in said["Transitions"]]
    known = ("AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration")
    return rule | {name: said[name] for name in known if name in said}


def _role(said: Properties) -> Iterator[Request]:
    trust = json.dumps(said["AssumeRolePolicyDocument"])
    yield "iam", "CreateRole", {"RoleName": "made-up", "AssumeRolePolicyDocument": trust}
    for policy in said.get("Policies", []):
        document = json.dumps(policy["PolicyDocument"])
        yield (
            "iam",
            "PutRolePolicy",
            {"RoleName": "made-up", "PolicyName": policy["PolicyName"], "PolicyDocument": document},
        )
    for arn in said.get("ManagedPolicyArns", []):
        yield "iam", "AttachRolePolicy", {"RoleName": "made-up", "PolicyArn": arn}


def _security_group(said: Properties) -> Iterator[Request]:
    group = {"GroupName": "made-up", "Description": said["GroupDescription"], "VpcId": said["VpcId"]}
    yield "ec2", "CreateSecurityGroup", group
    for direction in ("Ingress", "Egress"):
        for rule in said.get(f"SecurityGroup{direction}", []):
            yield _rule(direction, {"GroupId": "sg-0123", **rule})


def _rule(direction: str, said: Properties) -> Request:
    permission: dict[str, Any] = {name: said[name] for name in ("IpProtocol", "FromPort", "ToPort")}
    if "CidrIp" in said:
        permission["IpRanges"] = [{"CidrIp": said["CidrIp"], "Description": said["Description"]}]
    else:
        group = said.get("SourceSecurityGroupId") or said["DestinationSecurityGroupId"]
        permission["UserIdGroupPairs"] = [{"GroupId": group, "Description": said["Description"]}]
    operation = f"AuthorizeSecurityGroup{direction}"
    return "ec2", operation, {"GroupId": said["GroupId"], "IpPermissions": [permission]}


def _stream(said: Properties) -> Iterator[Request]:
    name = said["Name"]
    create = {name_: said[name_] for name_ in ("ShardCount", "StreamModeDetails") if name_ in said}
    yield "kinesis", "CreateStream", {"StreamName": name, **create}
    hours = said["RetentionPeriodHours"]
    yield "kinesis", "IncreaseStreamRetentionPeriod", {"StreamName": name, "RetentionPeriodHours": hours}
    yield "kinesis", "StartStreamEncryption", {"StreamName": name, **said["StreamEncryption"]}


def _cluster(said: Properties) -> Iterator[Request]:
    create = {name: value for name, value in said.items() if name != "AssociatedRoles"}
    yield "rds", "CreateDBCluster", create
    for role in said["AssociatedRoles"]:
        yield "rds", "AddRoleToDBCluster", {"DBClusterIdentifier": said["DBClusterIdentifier"], **role}


def _cluster_parameters(said: Properties) -> Iterator[Request]:
    name = said["DBClusterParameterGroupName"]
    group = {"DBParameterGroupFamily": said["Family"], "Description": said["Description"]}
    yield "rds", "CreateDBClusterParameterGroup", {"DBClusterParameterGroupName": name, **group}
    values = [
        {"ParameterName": key, "ParameterValue": value, "ApplyMethod": "pending-reboot"}
        for key, value in said["Parameters"].items()
    ]
    yield "rds", "ModifyDBClusterParameterGroup", {"DBClusterParameterGroupName": name, "Parameters": values}


def _secret(said: Properties) -> Iterator[Request]:
    yield "secretsmanager", "CreateSecret", {"Name": said["Name"], "Description": said["Description"]}
    if "GenerateSecretString" in said:
        yield "secretsmanager", "GetRandomPassword", dict(said["GenerateSecretString"])


def _key(said: Properties) -> Iterator[Request]:
    yield "kms", "CreateKey", {"Description": said["Description"], "Policy": json.dumps(said["KeyPolicy"])}
    yield "kms", "EnableKeyRotation", {"KeyId": "made-up"}
    yield "kms", "ScheduleKeyDeletion", {"KeyId": "made-up", "PendingWindowInDays": said["PendingWindowInDays"]}


def _log_group(said: Properties) -> Iterator[Request]:
    yield "logs", "CreateLogGroup", {"logGroupName": said["LogGroupName"]}
    days = {"retentionInDays": said["RetentionInDays"]}
    yield "logs", "PutRetentionPolicy", {"logGroupName": said["LogGroupName"], **days}


def _crawler(said: Properties) -> Iterator[Request]:
    schedule = {"Schedule": said["Schedule"]["ScheduleExpression"]} if "Schedule" in said else {}
    yield "glue", "CreateCrawler", {**said, **schedule}
    json.loads(said["Configuration"])


def _security_configuration(said: Properties) -> Iterator[Request]:
    encryption = _renamed(said["EncryptionConfiguration"], S3Encryptions="S3Encryption")
    yield "glue", "CreateSecurityConfiguration", {"Name": said["Name"], "EncryptionConfiguration": encryption}


def _work_group(said: Properties) -> Iterator[Request]:
    create = {"Name": said["Name"], "Description": said["Description"]}
    yield "athena", "CreateWorkGroup", {**create, "Configuration": said["WorkGroupConfiguration"]}


def _endpoint(said: Properties) -> Iterator[Request]:
    policy = {"PolicyDocument": json.dumps(said["PolicyDocument"])} if "PolicyDocument" in said else {}
    yield "ec2", "CreateVpcEndpoint", {**said, **policy}


def _tagged(operation: str, resource: str) -> Callable[[Properties], Iterator[Request]]:
    def create(said: Properties) -> Iterator[Request]:
        rest = {name: value for name, value in said.items() if name not in ("Tags", *_VPC_ATTRIBUTES)}
        tags = [{"ResourceType": resource, "Tags": said["Tags"]}] if "Tags" in said else []
        yield "ec2", operation, {**rest, "TagSpecifications": tags}
        for attribute in _VPC_ATTRIBUTES & said.keys():
            yield "ec2", "ModifyVpcAttribute", {"VpcId": "vpc-0123", attribute: {"Value": said[attribute]}}

    return create


def _topic(said: Properties) -> Iterator[Request]:
    attributes = {"KmsMasterKeyId": said["KmsMasterKeyId"]}
    yield "sns", "CreateTopic", {"Name": said["TopicName"], "Attributes": attributes}


def _topic_policy(said: Properties) -> Iterator[Request]:
    for topic in said["Topics"]:
        value = json.dumps(said["PolicyDocument"])
        yield "sns", "SetTopicAttributes", {"TopicArn": topic, "AttributeName": "Policy", "AttributeValue": value}


def _event_rule(said: Properties) -> Iterator[Request]:
    rule = {"Name": "made-up", **{name: value for name, value in said.items() if name != "Targets"}}
    if "EventPattern" in rule:
        rule["EventPattern"] = json.dumps(rule["EventPattern"])
    yield "events", "PutRule", rule
    yield "events", "PutTargets", {"Rule": rule["Name"], "Targets": said["Targets"]}


def _renamed(said: Properties, **names: str) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in said.items()}


_VPC_ATTRIBUTES = {"EnableDnsSupport", "EnableDnsHostnames"}
_CREATES: dict[str, Callable[[Properties], Iterator[Request]]] = {
    "AWS::Athena::DataCatalog": _as_is("athena", "CreateDataCatalog"),
    "AWS::Athena::WorkGroup": _work_group,
    "AWS::CloudWatch::Alarm": _as_is("cloudwatch", "PutMetricAlarm"),
    "AWS::CloudWatch::Dashboard": _as_is("cloudwatch", "PutDashboard"),
    "AWS::EC2::EIP": _tagged("AllocateAddress", "elastic-ip"),
    "AWS::EC2::InternetGateway": _tagged("CreateInternetGateway", "internet-gateway"),
    "AWS::EC2::NatGateway": _tagged("CreateNatGateway", "natgateway"),
    "AWS::EC2::Route": _as_is("ec2", "CreateRoute"),
    "AWS::EC2::RouteTable": _tagged("CreateRouteTable", "route-table"),
    "AWS::EC2::SecurityGroup": _security_group,
    "AWS::EC2::SecurityGroupEgress": lambda said: iter([_rule("Egress", said)]),
    "AWS::EC2::SecurityGroupIngress": lambda said: iter([_rule("Ingress", said)]),
    "AWS::EC2::Subnet": _tagged("CreateSubnet", "subnet"),
    "AWS::EC2::SubnetRouteTableAssociation": _as_is("ec2", "AssociateRouteTable"),
    "AWS::EC2::VPC": _tagged("CreateVpc", "vpc"),
    "AWS::EC2::VPCEndpoint": _endpoint,
    "AWS::EC2::VPCGatewayAttachment": _as_is("ec2", "AttachInternetGateway"),
    "AWS::ElastiCache::ReplicationGroup": _as_is("elasticache", "CreateReplicationGroup"),
    "AWS::ElastiCache::SubnetGroup": _as_is(
        "elasticache", "CreateCacheSubnetGroup", Description="CacheSubnetGroupDescription"
    ),
    "AWS::Events::Rule": _event_rule,
    "AWS::Glue::Crawler": _crawler,
    "AWS::Glue::Database": _as_is("glue", "CreateDatabase"),
    "AWS::Glue::Job": _as_is("glue", "CreateJob"),
    "AWS::Glue::SecurityConfiguration": _security_configuration,
    "AWS::Glue::Table": _as_is("glue", "CreateTable"),
    "AWS::Glue::Trigger": _as_is("glue", "CreateTrigger"),
    "AWS::IAM::Role": _role,
    "AWS::KMS::Alias": _as_is("kms", "CreateAlias"),
    "AWS::KMS::Key": _key,
    "AWS::Kinesis::Stream": _stream,
    "AWS::KinesisAnalyticsV2::Application": _as_is("kinesisanalyticsv2", "CreateApplication"),
    "AWS::KinesisAnalyticsV2::ApplicationCloudWatchLoggingOption": _as_is(
        "kinesisanalyticsv2", "AddApplicationCloudWatchLoggingOption"
    ),
    "AWS::KinesisFirehose::DeliveryStream": _as_is("firehose", "CreateDeliveryStream"),
    "AWS::Lambda::Function": _as_is("lambda", "CreateFunction"),
    "AWS::Logs::LogGroup": _log_group,
    "AWS::Logs::LogStream": _as_is(
        "logs", "CreateLogStream", LogGroupName="logGroupName", LogStreamName="logStreamName"
    ),
    "AWS::RDS::DBCluster": _cluster,
    "AWS::RDS::DBClusterParameterGroup": _cluster_parameters,
    "AWS::RDS::DBInstance": _as_is("rds", "CreateDBInstance"),
    "AWS::RDS::DBSubnetGroup": _as_is("rds", "CreateDBSubnetGroup"),
    "AWS::RedshiftServerless::Namespace": _lower_camel("redshift-serverless", "CreateNamespace"),
    "AWS::RedshiftServerless::Workgroup": _lower_camel("redshift-serverless", "CreateWorkgroup"),
    "AWS::S3::Bucket": _bucket,
    "AWS::S3::BucketPolicy": lambda said: iter(
        [("s3", "PutBucketPolicy", {"Bucket": said["Bucket"], "Policy": json.dumps(said["PolicyDocument"])})]
    ),
    "AWS::SNS::Subscription": _as_is("sns", "Subscribe"),
    "AWS::SNS::Topic": _topic,
    "AWS::SNS::TopicPolicy": _topic_policy,
    "AWS::SecretsManager::Secret": _secret,
}
