"""The command line by itself: help, mistakes, no installation, no rights; its exit codes."""

import json
import os
from pathlib import Path

import pytest

from installer.layout import Layout
from installer.main import main

COMMANDS = (
    "install",
    "join",
    "upgrade",
    "rollback",
    "versions",
    "history",
    "uninstall",
    "preflight",
)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = main(words)
    except SystemExit as ended:  # argparse
        code = int(ended.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_and_takes_no_other_option(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"cic-installer {command}" in out
    needed = ("--server", "https://x") if command == "join" else ()
    code, _, err = run(capsys, command, *needed, "--no-such-option")
    assert code == 2
    assert "--no-such-option" in err


@pytest.mark.parametrize("words", [("frobnicate",), ("frobnicate", "--json"), ("/media/bundle",)])
def test_a_command_that_does_not_exist_is_named(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert f"invalid choice: '{words[0]}'" in err
    assert "rollback" in err


def test_the_whole_help_lists_every_command_and_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in COMMANDS:
        assert f"\n    {command} " in out
    for number in range(6):
        assert f"{number} " in out.partition("Exit codes:")[2]


@pytest.mark.parametrize(
    "words",
    [
        ("upgrade",),
        ("upgrade", "bundle.tar.gz"),
        ("upgrade", "--undo"),
        ("upgrade", "bundle", "--dry-run"),
        ("rollback",),
        ("rollback", "--to", "1.0"),
        ("versions", "--remove", "1.0"),
        ("uninstall",),
        ("uninstall", "--dry-run"),
    ],
)
def test_without_an_installation_it_says_so_and_makes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    code, out, err = run(capsys, *words, "--prefix", str(tmp_path))
    assert (code, out) == (1, "")
    assert "installed here" in err
    assert "Fix: " in err
    code, out, _ = run(capsys, *words, "--json", "--prefix", str(tmp_path))
    assert code == 1
    assert json.loads(out)["error"]["code"] == "not_installed"
    assert list(tmp_path.iterdir()) == []


def test_reading_where_nothing_is_installed_is_no_failure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for command in ("versions", "history"):
        assert run(capsys, command, "--prefix", str(tmp_path))[0] == 0
        code, out, _ = run(capsys, command, "--json", "--prefix", str(tmp_path))
        assert (code, json.loads(out)) == (0, [])


@pytest.mark.parametrize(
    "words",
    [
        ("upgrade", "b"), ("upgrade", "b", "--dry-run"), ("rollback",), ("uninstall",),
        ("versions", "--remove", "1.0"),
    ],
)  # fmt: skip
def test_who_is_not_root_is_told_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    code, _, err = run(capsys, *words)
    assert code == 1
    assert "Only root" in err
    assert "sudo" in err


@pytest.mark.parametrize("command", ["versions", "history"])
def test_what_only_root_may_read_ends_in_no_traceback(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
) -> None:
    def closed(path: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in ("read_text", "read_bytes"):
        monkeypatch.setattr(Path, name, closed)
    code, _, err = run(capsys, command, "--prefix", str(tmp_path))
    assert code == 1
    assert f"{Layout(tmp_path).records}" in err
    assert "Permission denied" in err
    assert "Fix: Run it with sudo." in err
    code, out, _ = run(capsys, command, "--json", "--prefix", str(tmp_path))
    assert json.loads(out)["error"]["code"] == "installer_error"
