"""`cic demo` with the real models: from nothing to a metered answer, twice, also moved."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

MODELS = Path(sys.prefix) / "share" / "crosslogic" / "models"

pytestmark = [
    pytest.mark.skipif(
        not MODELS.is_dir(), reason="`make models` has not brought the demo's models"
    ),
    pytest.mark.timeout(300),
]


def command(home: Path, *arguments: str) -> list[str]:
    listen = ("--listen", "127.0.0.1:0")
    return [sys.executable, "-m", "appliance.cli", "--home", str(home), "demo", *listen, *arguments]


def once(home: Path, models: Path) -> dict[str, Any]:
    done = subprocess.run(
        [*command(home, "--once", "--json", "--models", str(models))],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert isinstance(told, dict)
    return told


def test_it_answers_is_metered_and_does_so_again_from_another_place(tmp_path: Path) -> None:
    first_place, second_place = tmp_path / "first", tmp_path / "second"
    for place in (first_place, second_place):
        place.mkdir()
        for file in MODELS.glob("*.gguf"):
            os.link(file, place / file.name)
    first = once(tmp_path / "home", first_place)
    assert first["chat"]["text"].strip()
    assert first["chat"]["record"]["status"] == "ok"
    assert first["chat"]["record"]["measured"] == "engine"
    assert first["chat"]["record"]["output_tokens"] > 0
    assert first["embedding"]["record"]["input_tokens"] > 0
    # The installation that the models came with is gone, and the home stayed.
    for file in first_place.iterdir():
        file.unlink()
    second = once(tmp_path / "home", second_place)
    assert second["chat"]["record"]["seq"] == 3
    assert second["key"] != first["key"]  # a secret is kept nowhere, so the key was rotated


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_on_until_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    home = tmp_path / "home"
    with subprocess.Popen(
        command(home), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        told: dict[str, str] = {}
        while len(told) < 2:
            line = process.stdout.readline()
            assert line, "the demo ended before it said where it is"
            if line.startswith(("endpoint ", "key ")):
                name, value = line.split()
                told[name] = value
        with httpx.Client(base_url=told["endpoint"]) as client:
            headers = {"authorization": f"Bearer {told['key']}"}
            assert client.get("/models", headers=headers).status_code == 200
            process.send_signal(number)
            assert process.wait(60) == 0
            with pytest.raises(httpx.ConnectError):
                client.get("/models", headers=headers)


def test_missing_models_are_named(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path / "home", "--json", "--models", str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7
    assert "make demo" in json.loads(done.stdout)["error"]["next_step"]
    assert not (tmp_path / "home").exists()
