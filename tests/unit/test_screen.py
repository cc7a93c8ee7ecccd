"""What others have written does not steer the terminal that it is shown on."""

import pytest

from cli import screen


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
