"""What others have written does not steer the terminal that it is shown on."""

import pytest

from cli import screen
from cli.run import _reasons


def test_a_table_shows_that_a_cell_would_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen.table("users", ["user_id"], [["x\x1b[31mü\x9b2J\r"], ["two\nlines"]])

    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "",
        "users",
        "user_id",
        "x\N{REPLACEMENT CHARACTER}[31mü\N{REPLACEMENT CHARACTER}2J\N{REPLACEMENT CHARACTER}",
        "two",
        "lines",
    ]


def test_of_many_reasons_the_line_names_some_and_counts_the_others() -> None:
    assert _reasons({"empty": 1, "too_large": 2}) == "2 too_large, 1 empty"
    assert _reasons({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}) == "6 f, 5 e, 4 d, 3 c, 3 others"
