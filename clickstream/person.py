"""Whose a record is, also one that is no event: what an erase takes away, and an export hands over."""

import json
import re
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Raw

_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, ValueError)


class Person:
    """One user, told from all others by `user_id`.

    A JSON object with a `user_id` is of the user it names, as text or as a number; where the key is repeated, of each
    of them. Anything else (broken JSON, bytes that are no text, an object without the key) is searched: it is theirs if
    the id follows the words user_id with nothing but punctuation between, or is the whole of a string, the last one
    perhaps cut off. That may take a broken record of somebody else for theirs, rather than leave one of theirs behind.
    """

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        spellings = {user_id, json.dumps(user_id)[1:-1], json.dumps(user_id, ensure_ascii=False)[1:-1]}
        spelled = "|".join(map(re.escape, sorted(spellings)))
        self._mention = re.compile(rf'(?i:user_?id)\W{{0,12}}?(?:{spelled})(?!\w)|"(?:{spelled})(?:"|\Z)')

    def owns(self, payload: bytes) -> bool:
        """Say whether a record is theirs."""
        try:
            named = _OBJECT.decode(payload).get("user_id")
            if named is not None:
                once = payload.count(b"user_id") == 1 and b"\\u" not in payload
                values = [msgspec.json.decode(named)] if once else _all_named(payload)
                return any(not isinstance(value, bool) and str(value) == self.user_id for value in values)
        except _UNREADABLE:
            pass
        return self._is_mentioned(payload)

    def rows(self, table: pa.Table) -> pa.Array:
        """Say of each row of a table whether it is theirs, by its columns `user_id` and `payload`."""
        theirs = pa.array(np.zeros(len(table), bool))
        if "user_id" in table.column_names:
            named = _whole(table["user_id"]).cast(pa.string())
            theirs = pc.or_(theirs, pc.fill_null(pc.equal(named, self.user_id), False))
        if "payload" in table.column_names:
            theirs = pc.or_(theirs, self._rows_of_payloads(_whole(table["payload"]).cast(pa.binary())))
        return theirs

    def addresses(self, table: pa.Table) -> set[str]:
        """Collect the addresses that rows of theirs name."""
        found: set[str | None] = set()
        if "user_ip" in table.column_names:
            found.update(pc.unique(table["user_ip"]).to_pylist())
        if "payload" in table.column_names:
            found.update(_address(payload) for payload in table["payload"].to_pylist() if payload)
        return {address for address in found if address}

    def _rows_of_payloads(self, payloads: pa.Array) -> pa.Array:
        """Look closely only at payloads in which the id can be: it is there as it is, or behind a backslash or NUL."""
        near = pc.match_substring(payloads, pattern=self.user_id.encode())
        for hiding in (b"\\", b"\0"):
            near = pc.or_(near, pc.match_substring(payloads, pattern=hiding))
        theirs = np.array(pc.fill_null(near, False), dtype=bool)
        for row in np.flatnonzero(theirs):
            theirs[row] = self.owns(payloads[row].as_py())
        return pa.array(theirs)

    def _is_mentioned(self, payload: bytes) -> bool:
        text = payload.replace(b"\0", b"").decode(errors="replace")  # without NULs, UTF-16 reads as ASCII
        plain = _ESCAPE.sub(lambda code: chr(int(code[1], 16)), text)
        paired = plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return any(self._mention.search(one) for one in {text, paired})


def _all_named(payload: bytes) -> list[Any]:
    """Return the outermost object's values of `user_id`, all of them if it is repeated."""
    pairs: list[tuple[str, Any]] = []

    def keep(object_: list[tuple[str, Any]]) -> None:
        pairs[:] = object_  # the outermost object is the last to be done

    json.loads(payload, object_pairs_hook=keep)
    return [value for name, value in pairs if name == "user_id"]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _address(payload: bytes) -> str | None:
    try:
        value = msgspec.json.decode(_OBJECT.decode(payload).get("user_ip", Raw(b"null")))
    except _UNREADABLE:
        return None
    return value if isinstance(value, str) else None
