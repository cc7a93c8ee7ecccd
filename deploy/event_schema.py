"""The JSON Schema of an event, in the draft 4 that API Gateway knows, derived from the description."""

from typing import Any, Final

from msgspec import inspect

from clickstream.event import Event

MAX_BATCH: Final = 500
"""How many events one request may carry: as many records as PutRecords takes."""

_DRAFT: Final = "http://json-schema.org/draft-04/schema#"


def event_schema() -> dict[str, Any]:
    """Describe one event; whatever `decode` accepts fits, but not the other way round.

    What draft 4 has no words for passes, and the job rejects it: a text that is no timestamp or no address. Limits
    hold exactly here, while decode compares what is left of a number as a double.
    """
    return {"$schema": _DRAFT, "title": "Event", **_schema(inspect.type_info(Event))}


def batch_schema() -> dict[str, Any]:
    """Describe an array of 1 to 500 events."""
    one = _schema(inspect.type_info(Event))
    return {"$schema": _DRAFT, "title": "Events", "type": "array", "minItems": 1, "maxItems": MAX_BATCH, "items": one}


def _schema(described: inspect.Type) -> dict[str, Any]:  # noqa: PLR0911  # a table, one line a type
    """Translate a type of the description; `TypeError` for one that has no rule yet."""
    match described:
        case inspect.Metadata(type=inner):
            return _schema(inner)
        case inspect.StructType(fields=fields):
            return {
                "type": "object",
                "required": [field.encode_name for field in fields if field.required],
                "properties": {field.encode_name: _schema(field.type) for field in fields},
            }
        case inspect.LiteralType(values=names):
            return {"type": "string", "enum": list(names)}
        case inspect.DateTimeType():
            return {"type": "string"}
        case inspect.StrType(min_length=low, max_length=high):
            return {"type": "string", **_limits(minLength=low, maxLength=high)}
        case inspect.IntType(ge=low, le=high):
            return {"type": "integer", **_limits(minimum=low, maximum=high)}
        case inspect.FloatType(ge=low, le=high):
            return {"type": "number", **_limits(minimum=low, maximum=high)}
        case _:
            raise TypeError(f"no JSON Schema for {described}")


def _limits(**limits: float | None) -> dict[str, float]:
    return {name: limit for name, limit in limits.items() if limit is not None}
