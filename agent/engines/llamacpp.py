"""llama.cpp as an engine: its command line, what its exits mean, when a start is hopeless."""

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agent.engines.exposition import sums
from agent.engines.kind import Load, Properties, Room
from agent.engines.llamacpp_server import EXIT_NOT_INSTALLED, EXIT_NOT_LOADED
from agent.engines.programs import LLAMA_SERVER_VARIABLE, program, told_version
from agent.engines.readings import ended, file_print, positive
from agent.engines.variables import API_KEY_VARIABLE, PORT_VARIABLE
from agent.processes import Command
from appliance.wire.agent import DesiredReplica
from appliance.wire.engine_arguments import EMBEDDED, Place, embedded_arguments, engine_arguments
from appliance.wire.engine_refusals import unfit_settings

_GGUF_MAGIC: Final = b"GGUF"
# llama.cpp's own lines: a time, E for an error, the part that speaks, what it says. Its last
# errors only say that an error happened; the first one says which.
_ERROR_LINE: Final = re.compile(r"^[\d.]+ E (.+)$")
_INSTALL: Final = (
    "Install it from the bundle crosslogic-llamacpp, or with"
    " `pip install crosslogic-appliance[llamacpp]`."
)
_NOT_LOADED: Final = "xllamacpp is not installed: "  # llamacpp_server's own words
_WAITING: Final = "llamacpp:requests_deferred"
_RUNNING: Final = ("llamacpp:requests_processing", _WAITING)
_PROMPT: Final = "llamacpp:prompt_tokens_total"  # without those out of the cache
_CACHED: Final = "llamacpp:prompt_tokens_cached_total"
_GENERATED: Final = "llamacpp:tokens_predicted_total"
_PROMPT_S: Final = "llamacpp:prompt_seconds_total"
_PROGRESS: Final = (_PROMPT, _GENERATED, "llamacpp:n_decode_total")


def _found() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


def _libraries(environ: Mapping[str, str]) -> dict[str, str]:
    """The bundle of llama.cpp brings the OpenMP library that a minimal system lacks."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        return {}
    folder = Path(spec.origin).parents[1] / "lib"
    if not (folder / "libgomp.so.1").exists():
        return {}
    others = environ.get("LD_LIBRARY_PATH", "")
    return {"LD_LIBRARY_PATH": f"{folder}:{others}".rstrip(":")}


class LlamaCpp:
    """Runs llama-server where it is installed, else xllamacpp's server as a process of its own."""

    name: Final = "llamacpp"
    properties_path: Final = "/props"
    load_path: Final = None  # one process: when it hangs, it does not answer at all
    members: Final = ()
    sleep_path: Final = None
    wake_path: Final = None
    health_path: Final = "/health"
    # A slot that remembers the prompt would flatter the speed of the next request.
    probe_fields: Final[Mapping[str, Any]] = {"cache_prompt": False}

    def __init__(self, environ: Mapping[str, str], installed: Callable[[], bool] = _found) -> None:
        """`environ` is the agent's own; `installed` tells whether the embedded engine is there."""
        self._environ = environ
        self._installed = installed

    def version(self) -> str | None:
        server = self._server()
        if server is not None:
            return told_version(server) or "unknown"
        if not self._installed():
            return None
        try:
            return f"{EMBEDDED} {importlib.metadata.version('xllamacpp')}"
        except importlib.metadata.PackageNotFoundError:
            return f"{EMBEDDED} unknown"

    def hopeless(self, replica: DesiredReplica) -> str | None:
        server = self._server()
        if server is None and not self._installed():
            return f"The engine llamacpp is not installed on this node. {_INSTALL}"
        if server is None and (replica.settings.arguments or replica.settings.chat_template):
            return (
                "The embedded llama.cpp takes no arguments and no chat template of their own."
                f" Install llama-server and name it with {LLAMA_SERVER_VARIABLE}."
            )
        return unfit_settings("llamacpp", replica.settings) or _unfit_file(replica)

    def fingerprint(self, replica: DesiredReplica) -> object:
        """Changes when the model's file does, or when llama-server is installed."""
        return file_print(Path(replica.model_path)), self._server()

    def command(self, replica: DesiredReplica, room: Room) -> Command:
        thread_count = threads(replica, room.cores, room.replicas)
        environ = {
            API_KEY_VARIABLE: room.api_key,
            # Threads that spin while they wait take the cores from those that would end the wait.
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": str(thread_count),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": ",".join(replica.gpu_uuids),
        }
        server = self._server()
        if server is None:
            return Command(_embedded(replica, thread_count), environ | _libraries(self._environ))
        environ |= {PORT_VARIABLE: str(room.port), "LLAMA_API_KEY": room.api_key}
        words = engine_arguments(replica, None, Place(port=room.port, threads=thread_count))
        quiet = (sys.executable, "-m", "agent.engines.quiet_server")
        return Command((*quiet, str(server), *words), environ)

    def end_reason(self, exit_code: int | None, log_tail: Sequence[str]) -> tuple[str, bool]:
        if exit_code == EXIT_NOT_INSTALLED:
            why = next((line for line in reversed(log_tail) if line.startswith(_NOT_LOADED)), "")
            said = f": {why.removeprefix(_NOT_LOADED).rstrip('.')}" if why else ""
            return f"The engine llamacpp cannot be loaded on this node{said}. {_INSTALL}", True
        if exit_code == EXIT_NOT_LOADED:
            said = _first_error(log_tail) or "llama.cpp gives no reason"
            return f"The model does not load: {said}.", True
        if exit_code == 1 and (said := _first_error(log_tail)):
            return f"llama-server ended: {said}.", False
        return ended(exit_code), False

    def load(self, metrics: str) -> Load:
        figures = dict.fromkeys((*_RUNNING, *_PROGRESS, _CACHED, _PROMPT_S), 0.0)
        figures |= sums(metrics, figures)
        return Load(
            requests=int(sum(figures[name] for name in _RUNNING)),
            progress=tuple(figures[name] for name in _PROGRESS),
            prompt_tokens=int(figures[_PROMPT] + figures[_CACHED]),
            generated_tokens=int(figures[_GENERATED]),
            waiting=int(figures[_WAITING]),
            prefill=(figures[_PROMPT], figures[_PROMPT_S]),
        )

    def properties(self, answer: Mapping[str, Any]) -> Properties:
        settings = answer.get("default_generation_settings")
        context_tokens = settings.get("n_ctx") if isinstance(settings, dict) else None
        return Properties(positive(answer.get("total_slots")), positive(context_tokens))

    def _server(self) -> Path | None:
        return program(LLAMA_SERVER_VARIABLE, "llama-server", self._environ)


def _unfit_file(replica: DesiredReplica) -> str | None:
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


def _embedded(replica: DesiredReplica, thread_count: int) -> tuple[str, ...]:
    """The engine chooses a free port of the loopback address and tells it."""
    words = embedded_arguments(replica, thread_count)
    return (sys.executable, "-m", "agent.engines.llamacpp_server", *words)


def threads(replica: DesiredReplica, cores: int, replicas: int) -> int:
    """Compute threads of one engine: one core is left to the gateway, the rest is divided.

    More threads than free cores are far worse than too few: they wait for each other at every
    layer, and on two busy cores two threads were seen to fall to a tenth of one thread's speed.
    """
    share = max(1, (cores - 1) // max(1, replicas))
    return share if replica.threads is None else max(1, min(replica.threads, cores))


def _first_error(log_tail: Sequence[str]) -> str:
    """The first error of the last run in the log: the lines up to the end of the run before.

    Empty: there is none.
    """
    found = ""
    for line in reversed(log_tail):
        match = _ERROR_LINE.match(line)
        if match:
            found = match[1].strip()
        elif found:
            break
    return found.removesuffix(".")
