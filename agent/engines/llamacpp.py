"""llama.cpp as an engine: its command line, what its exits mean, when a start is hopeless."""

import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agent.engines.exposition import sums
from agent.engines.kind import Load, Properties, Room
from agent.engines.llamacpp_server import EXIT_NOT_INSTALLED, EXIT_NOT_LOADED
from agent.engines.readings import ended, positive
from agent.engines.variables import API_KEY_VARIABLE
from agent.processes import Command
from appliance.wire.agent import DesiredReplica

_GGUF_MAGIC: Final = b"GGUF"
# llama.cpp's own lines: a time, E for an error, the part that speaks, what it says. Its last
# errors only say that an error happened; the first one says which.
_ERROR_LINE: Final = re.compile(r"^[\d.]+ E (.+)$")
_INSTALL: Final = "Install it with `pip install crosslogic-appliance[llamacpp]`."
_WAITING: Final = "llamacpp:requests_deferred"
_RUNNING: Final = ("llamacpp:requests_processing", _WAITING)
_PROMPT: Final = "llamacpp:prompt_tokens_total"  # without those out of the cache
_CACHED: Final = "llamacpp:prompt_tokens_cached_total"
_GENERATED: Final = "llamacpp:tokens_predicted_total"
_PROGRESS: Final = (_PROMPT, _GENERATED, "llamacpp:n_decode_total")


def _found() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


class LlamaCpp:
    """Runs xllamacpp's server as a process of its own."""

    name: Final = "llamacpp"
    health_path: Final = None
    properties_path: Final = "/props"
    # A slot that remembers the prompt would flatter the speed of the next request.
    probe_fields: Final[Mapping[str, Any]] = {"cache_prompt": False}

    def __init__(self, installed: Callable[[], bool] = _found) -> None:
        self._installed = installed

    def version(self) -> str | None:
        if not self._installed():
            return None
        try:
            return importlib.metadata.version("xllamacpp")
        except importlib.metadata.PackageNotFoundError:
            return "unknown"

    def hopeless(self, replica: DesiredReplica) -> str | None:
        """Why a start cannot work, with the next step; None: it may."""
        if not self._installed():
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

    def fingerprint(self, replica: DesiredReplica) -> tuple[int, int, int] | None:
        """Changes when the model's file does; None: it is not there."""
        try:
            stat = os.stat(replica.model_path)  # noqa: PTH116 - three figures of one call
        except OSError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def command(self, replica: DesiredReplica, room: Room) -> Command:
        """The engine chooses a free port of the loopback address and tells it."""
        thread_count = threads(replica, room.cores, room.replicas)
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
            API_KEY_VARIABLE: room.api_key,
            # Threads that spin while they wait take the cores from those that would end the wait.
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": str(thread_count),
        }
        return Command(tuple(arguments), environ)

    def end_reason(self, exit_code: int | None, log_tail: Sequence[str]) -> tuple[str, bool]:
        """Why the process ended, for a person, and whether it would end the same way again."""
        if exit_code == EXIT_NOT_INSTALLED:
            return f"The engine llamacpp cannot be loaded on this node. {_INSTALL}", True
        if exit_code == EXIT_NOT_LOADED:
            return f"The model does not load: {_first_error(log_tail)}.", True
        return ended(exit_code), False

    def load(self, metrics: str) -> Load:
        """Requests and counters."""
        figures = dict.fromkeys((*_RUNNING, *_PROGRESS, _CACHED), 0.0)
        figures |= sums(metrics, figures)
        return Load(
            requests=int(sum(figures[name] for name in _RUNNING)),
            progress=tuple(figures[name] for name in _PROGRESS),
            prompt_tokens=int(figures[_PROMPT] + figures[_CACHED]),
            generated_tokens=int(figures[_GENERATED]),
            waiting=int(figures[_WAITING]),
        )

    def properties(self, answer: Mapping[str, Any]) -> Properties:
        """Slots and the context of one request, as the engine has them."""
        settings = answer.get("default_generation_settings")
        context_tokens = settings.get("n_ctx") if isinstance(settings, dict) else None
        return Properties(positive(answer.get("total_slots")), positive(context_tokens))


def threads(replica: DesiredReplica, cores: int, replicas: int) -> int:
    """Compute threads of one engine: one core is left to the gateway, the rest is divided.

    More threads than free cores are far worse than too few: they wait for each other at every
    layer, and on two busy cores two threads were seen to fall to a tenth of one thread's speed.
    """
    share = max(1, (cores - 1) // max(1, replicas))
    return share if replica.threads is None else max(1, min(replica.threads, cores))


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
