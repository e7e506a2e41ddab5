"""llama.cpp as an engine: its command line, what its exits mean, when a start is hopeless."""

import importlib.util
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.engines.llamacpp_server import (
    API_KEY_VARIABLE,
    EXIT_NOT_INSTALLED,
    EXIT_NOT_LOADED,
)
from agent.processes import Command
from appliance.wire.agent import DesiredReplica

_GGUF_MAGIC: Final = b"GGUF"
# llama.cpp's own lines: a time, E for an error, the part that speaks, what it says. Its last
# errors only say that an error happened; the first one says which.
_ERROR_LINE: Final = re.compile(r"^[\d.]+ E (.+)$")
_INSTALL: Final = "Install it with `pip install crosslogic-appliance[llamacpp]`."


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int


def installed() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


def hopeless(replica: DesiredReplica) -> str | None:
    """Why a start cannot work, with the next step; None: it may."""
    if replica.engine != "llamacpp":
        return f"This agent cannot run the engine {replica.engine}. Run a newer release of it."
    if not installed():
        return f"The engine llamacpp is not installed on this node. {_INSTALL}"
    path = Path(replica.model_path)
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        return (
            f"The model file {path} cannot be read: {error.strerror}."
            " Put it back, or give the deployment another model."
        )
    if magic != _GGUF_MAGIC:
        return f"{path} is not a GGUF model. Give the deployment a GGUF file."
    return None


def fingerprint(replica: DesiredReplica) -> tuple[int, int, int] | None:
    """Changes when the model's file does; None: it is not there."""
    try:
        stat = os.stat(replica.model_path)  # noqa: PTH116 - three figures of one call
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def threads(replica: DesiredReplica, cores: int, replicas: int) -> int:
    """Compute threads of one engine: one core is left to the gateway, the rest is divided.

    More threads than free cores are far worse than too few: they wait for each other at every
    layer, and on two busy cores two threads were seen to fall to a tenth of one thread's speed.
    """
    share = max(1, (cores - 1) // max(1, replicas))
    return share if replica.threads is None else max(1, min(replica.threads, cores))


def command(replica: DesiredReplica, thread_count: int, api_key: str) -> Command:
    """What is run. The engine chooses a free port of the loopback address and tells it."""
    arguments = [
        *(sys.executable, "-m", "agent.engines.llamacpp_server"),
        *("--model", replica.model_path),
        *("--alias", replica.model_name),
        *("--parallel", str(replica.parallel)),
        *("--context", str(replica.context_tokens)),
        *("--threads", str(thread_count)),
    ]
    if replica.embedding:
        arguments.append("--embedding")
    environ = {
        API_KEY_VARIABLE: api_key,
        # Threads that spin while they wait take the cores from those that would end the wait.
        "OMP_WAIT_POLICY": "passive",
        "OMP_NUM_THREADS": str(thread_count),
    }
    return Command(tuple(arguments), environ)


def address(ready_line: bytes) -> Address | None:
    """Where the engine listens, from its first line; None: that is no such line."""
    try:
        message = json.loads(ready_line)
        return Address(str(message["host"]), int(message["port"]))
    except (ValueError, KeyError, TypeError):
        return None


def api_key_of(environ: dict[str, str]) -> str | None:
    """The key an engine was started with, from the environment of its process."""
    return environ.get(API_KEY_VARIABLE)


def end_reason(exit_code: int | None, log_tail: Sequence[str]) -> tuple[str, bool]:
    """Why the process ended, for a person, and whether it would end the same way again."""
    if exit_code is None:
        return "The engine ended; an earlier agent had started it, so nobody knows how.", False
    if exit_code == EXIT_NOT_INSTALLED:
        return f"The engine llamacpp cannot be loaded on this node. {_INSTALL}", True
    if exit_code == EXIT_NOT_LOADED:
        return f"The model does not load: {_first_error(log_tail)}.", True
    if exit_code == -9:
        return "The engine was killed (signal 9), perhaps for want of memory.", False
    if exit_code < 0:
        return f"The engine crashed (signal {-exit_code}).", False
    return f"The engine ended with exit code {exit_code}.", False


def _first_error(log_tail: Sequence[str]) -> str:
    """The first error of the last run in the log: the lines up to the end of the run before."""
    found = ""
    for line in reversed(log_tail):
        match = _ERROR_LINE.match(line)
        if match:
            found = match[1].strip()
        elif found:
            break
    return found.removesuffix(".") or "llama.cpp gives no reason"
