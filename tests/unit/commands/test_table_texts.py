"""What tables do with names that come from other machines."""

import pytest

from appliance.commands.output import Column, print_rows


def test_no_name_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["\x1b[31mred", "two\nrows", "a\u202eb", "c\x9b1m", "Zürich"]
    columns: list[Column[str]] = [Column("NAME", lambda name: name)]
    print_rows(names, columns, "Nothing.")
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 1 + len(names)
    assert all(c.isprintable() for c in shown.replace("\n", ""))
    assert "Zürich" in shown
