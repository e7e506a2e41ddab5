"""What the embedded llama.cpp tells of itself when it begins to serve."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.engines.readings import ready_caveat


@pytest.mark.parametrize(("layers", "warned"), [("0", False), ("-1", True)])
def test_it_says_when_it_was_given_gpus_and_cannot_use_them(
    chat_model: Path, layers: str, *, warned: bool
) -> None:
    command = [
        *(sys.executable, "-m", "agent.engines.llamacpp_server"),
        *("--model", str(chat_model), "--alias", "m", "--context", "256", "--parallel", "1"),
        *("--gpu-layers", layers),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as engine:
        try:
            assert engine.stdout is not None
            line = engine.stdout.readline()
        finally:
            engine.kill()
    assert json.loads(line)["event"] == "listening"
    assert ("runs on the processor" in ready_caveat(line)) is warned


@pytest.mark.parametrize("line", [b"", b"no JSON", b"[]", b'{"event": "listening"}'])
def test_a_line_without_a_word_of_it_says_nothing(line: bytes) -> None:
    assert ready_caveat(line) == ""
