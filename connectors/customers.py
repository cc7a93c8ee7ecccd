"""A customer as a row, and the CSV files that customers come in."""

import codecs
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Final

from clickstream.errors import Refused

WIDTHS: Final = {"customer_id": 128, "pixel_id": 128, "name": 255}  # in characters, all of one at least
PRICE_DIGITS: Final = 12
PRICE_PLACES: Final = 4

_PRICE: Final = re.compile(rf"[0-9]{{1,{PRICE_DIGITS - PRICE_PLACES}}}(\.[0-9]{{1,{PRICE_PLACES}}})?")


@dataclass(frozen=True, slots=True)
class Customer:
    """A shopper who has signed up, and what a click of theirs costs; `customer_id` is the events' `user_id`.

    A value the table could not hold is a ValueError that names the column, and says nothing of the value.
    """

    customer_id: str
    pixel_id: str
    name: str
    price_per_click: Decimal

    def __post_init__(self) -> None:
        for column, width in WIDTHS.items():
            value: str = getattr(self, column)
            if not 1 <= len(value) <= width:
                raise ValueError(f"{column} has {len(value)} characters, 1 to {width} fit")
            if not is_text(value):
                raise ValueError(f"{column} has half a surrogate pair in it, which no database keeps")
        if self.customer_id != self.customer_id.strip():  # MySQL finds "7" when asked for "7 "
            raise ValueError("customer_id begins or ends with white space")
        if not _PRICE.fullmatch(str(self.price_per_click)):
            raise ValueError(
                f"price_per_click is not a price such as 0.25: {PRICE_DIGITS - PRICE_PLACES} digits fit before the "
                f"point and {PRICE_PLACES} after it"
            )


COLUMNS: Final = tuple(field.name for field in fields(Customer))


def is_text(value: str) -> bool:
    """Say whether a string can be written as UTF-8, which half a surrogate pair from JSON cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def customers_in(path: Path) -> Iterator[Customer]:
    """Read a CSV file in UTF-8 whose first line names the columns, in any order; one row at a time is in memory.

    What is not a customer is `Refused` with its line and column, and nothing of what is written there.
    """
    try:
        with path.open("rb") as file:
            yield from _read(path, codecs.iterdecode(file, "utf-8-sig"))
    except OSError as error:
        raise Refused(f"cannot read customers from {path} ({error.strerror}). Next: check the path") from error


def _read(path: Path, lines: Iterator[str]) -> Iterator[Customer]:
    reader = csv.reader(lines, strict=True)
    columns: list[str] = []
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except UnicodeDecodeError:
            raise _refused(path, reader.line_num + 1, "is not UTF-8") from None
        except csv.Error as error:
            raise _refused(path, reader.line_num, f"is not CSV ({error})") from None
        if not columns:
            columns = cells or []
            if sorted(columns) != sorted(COLUMNS):
                raise _refused(path, 1, f"does not name the columns {','.join(COLUMNS)}")
        elif cells is None:
            return
        elif cells:  # an empty line has none
            yield _customer(path, line, columns, cells)
        line = reader.line_num + 1


def _customer(path: Path, line: int, columns: list[str], cells: list[str]) -> Customer:
    if len(cells) != len(columns):
        missing = f", {columns[len(cells)]} is missing" if len(cells) < len(columns) else ""
        raise _refused(path, line, f"has {len(cells)} columns instead of {len(columns)}{missing}")
    row = dict(zip(columns, cells, strict=True))
    price = row.pop("price_per_click")
    try:
        return Customer(price_per_click=Decimal(price if _PRICE.fullmatch(price) else "NaN"), **row)
    except ValueError as error:
        raise _refused(path, line, str(error)) from None


def _refused(path: Path, line: int, why: str) -> Refused:
    return Refused(f"{path}, line {line}: {why}. Next: correct it and load the file again, which is harmless")
