"""Events as AWS hands them to Lambdas."""

import base64
import json
from typing import Any


def offer(number: int) -> bytes:
    return json.dumps(
        {
            "offer_id": f"offer-{number}",
            "timestamp": "2021-07-12 12:01:58.732726",
            "event_name": "ViewContent",
            "percent_viewed": 87.5,
            "product_id": number,
            "price": 417.97,
            "user_id": "35",
            "click_id": f"click-{number}",
        }
    ).encode()


def arrived(*payloads: bytes, shard: str = "shardId-000000000006") -> dict[str, Any]:
    """An event of Kinesis as docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html shows it."""
    return {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "35",
                    "sequenceNumber": f"4959033827149025660855969253836157109592157598913658{number:04}",
                    "data": base64.b64encode(payload).decode(),
                    "approximateArrivalTimestamp": 1545084650.987,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"{shard}:4959033827149025660855969253836157109592157598913658{number:04}",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
                "awsRegion": "us-east-1",
                "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/offers",
            }
            for number, payload in enumerate(payloads)
        ]
    }
