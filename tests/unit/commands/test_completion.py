"""What the shells are given, and what they get when somebody presses TAB."""

import subprocess
import sys

import pytest

from appliance.wire.command import ExitCode
from tests.fakes.command_line import cic

CIC = [sys.executable, "-c", "import sys; from appliance.cli import main; sys.exit(main())"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    done = cic("completion", shell)
    assert done.code == ExitCode.OK
    assert f"_CIC_COMPLETE={shell}_complete" in done.out
    assert cic("--json", "completion", shell).json == {"shell": shell, "script": done.out[:-1]}


def test_the_bash_script_is_sound() -> None:
    script = cic("completion", "bash").out
    subprocess.run(["/bin/bash", "-n"], input=script, text=True, timeout=10, check=True)


def test_a_shell_without_a_script_is_refused() -> None:
    assert cic("completion", "tcsh").code == ExitCode.USAGE


def completed(words: str, position: int) -> set[str]:
    done = subprocess.run(
        CIC,
        env={"_CIC_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("words", "position", "offered"),
    [
        ("cic de", 1, {"demo", "deployment"}),
        ("cic tenant su", 2, {"suspend"}),
        ("cic --home /x key cr", 4, {"create"}),
        ("cic tenant create --pl", 3, {"--plan"}),
        ("cic tenant create --plan d", 4, {"developer"}),
        ("cic status --js", 2, {"--json"}),
    ],
)
def test_words_are_completed(words: str, position: int, offered: set[str]) -> None:
    assert completed(words, position) == offered
