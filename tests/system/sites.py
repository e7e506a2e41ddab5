"""What an administrator does with a stick, and what a developer on the LAN then sees."""

import json
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.machines import LAN, Machine

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NAME = f"crosslogic-appliance-{VERSION}-linux-x86_64"
ENGINE = f"crosslogic-llamacpp-{VERSION}-linux-x86_64"
STICK = "/media/stick"
MODELS = "/media/models"
SHARED = {ROOT / "dist": STICK, ROOT / ".venv/share/crosslogic/models": MODELS}
MODEL = "smollm2-135m-instruct"

# A machine here has no GPU and little room: what the preflight says of that is passed by.
WITHOUT_MODEL = """
[tenant]
name = "acme"
key_file = "/srv/key"
[preflight]
ignore = ["gpu.present", "gpu.driver", "disk.models"]
models_gb = 1
"""
WITH_MODEL = (
    WITHOUT_MODEL
    + f"""
[model]
file = "{MODELS}/{MODEL}.gguf"
"""
)


@dataclass(frozen=True, slots=True)
class Installed:
    card: dict[str, Any]
    unpack_s: float
    install_s: float


def unpack(machine: Machine, name: str) -> float:
    began = time.monotonic()
    machine.run("tar", "xzf", f"{STICK}/{name}.tar.gz", "-C", "/srv")
    return time.monotonic() - began


def install(machine: Machine, answers: str) -> Installed:
    """From the archive on the stick to the final card."""
    unpack_s = unpack(machine, NAME)
    if "[model]" in answers:
        unpack_s += unpack(machine, ENGINE)
    (machine.root / "srv/answers.toml").write_text(answers)
    began = time.monotonic()
    told = machine.run(f"/srv/{NAME}/install.sh", "--answers", "/srv/answers.toml", "--json")
    return Installed(json.loads(told), unpack_s, time.monotonic() - began)


def endpoint(machine: Machine, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The endpoint as a client on the LAN reaches it, with the first key."""
    key = (machine.root / "srv/key").read_text().strip()
    command = ["curl", "--silent", "--show-error", "--max-time", "60"]
    command += ["-H", f"Authorization: Bearer {key}"]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "--data-binary", json.dumps(body)]
    answer: dict[str, Any] = json.loads(machine.run(*command, f"http://{LAN}:8080{path}"))
    return answer


def completion(machine: Machine) -> dict[str, Any]:
    asked = [{"role": "user", "content": "Say hello."}]
    return endpoint(
        machine, "/v1/chat/completions", {"model": MODEL, "messages": asked, "max_tokens": 8}
    )
