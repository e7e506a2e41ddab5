"""vLLM as an engine: launched offline and behind a key; what its figures and ends mean."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.engines.exposition import labelled, sums
from agent.engines.kind import Load, Properties, Room
from agent.engines.launching import offline_environ, own_address, own_folders, private_folder
from agent.engines.programs import (
    VLLM_VARIABLE,
    package,
    program,
    python_of,
    told_version,
)
from agent.engines.readings import (
    ended,
    file_print,
    folder_print,
    last_error,
    longest_context,
    positive,
    unfit_folder,
)
from agent.engines.variables import API_KEY_VARIABLE, PORT_VARIABLE
from agent.processes import Command
from appliance.wire.agent import DesiredReplica, Pipeline
from appliance.wire.engine_arguments import LOOPBACK, Place, engine_arguments, lacking
from appliance.wire.engine_refusals import unfit_settings

_GUARD: Final = "crosslogic_guard.Guard"
_INSTALL: Final = (
    f"Install vLLM into an environment of its own and name its program with {VLLM_VARIABLE}."
)
_RUNNING: Final = "vllm:num_requests_running"
_WAITING: Final = "vllm:num_requests_waiting"
_PROMPT: Final = "vllm:prompt_tokens_total"  # those out of its cache included
_GENERATED: Final = "vllm:generation_tokens_total"
_STEPS: Final = "vllm:iteration_tokens_total_count"
_CACHE: Final = "vllm:kv_cache_usage_perc"
_HITS: Final = "vllm:prefix_cache_hits_total"
_PREFILL_S: Final = "vllm:request_prefill_time_seconds_sum"
_SLEEP: Final = "vllm:engine_sleep_state"
_KV_CACHE: Final = "kv-cache-memory"
_CPU_KV_CACHE_GIB: Final = "4"
_RAY_TOKENS: Final = ("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN")
_LORA_RANK: Final = 16  # where an adapter does not say its own


class Vllm:
    """Runs `vllm serve`, an API process with its engine's processes, in one process group."""

    name: Final = "vllm"
    health_path: Final = "/health"
    members: Final = ()  # the one in front ends when one of those behind it has
    properties_path: Final = "/v1/models"
    load_path: Final = "/load"
    sleep_path: Final = "/sleep?level=1"
    wake_path: Final = "/wake_up"
    probe_fields: Final[Mapping[str, Any]] = {}

    def __init__(self, environ: Mapping[str, str]) -> None:
        """`environ` is the agent's own."""
        self._environ = environ
        self._version: str | None = None
        self._python: Path | None = None  # start it by its module instead of its program

    def version(self) -> str | None:
        path = self._program()
        if path is None:
            return None
        python = python_of(path)
        found = package(python, "vllm") if python else None
        # The program `vllm` of a distribution with another name cannot even tell its version.
        self._python = python if found is not None and found.name != "vllm" else None
        self._version = told_version(path) if found is None else found.version
        return self._version

    def hopeless(self, replica: DesiredReplica) -> str | None:
        if self._program() is None:
            return f"The engine vllm is not installed on this node. {_INSTALL}"
        if self._version is None:
            return (
                "vLLM was installed after this agent started, or does not tell its version."
                " Restart the agent; engines that run stay."
            )
        return (
            unfit_settings("vllm", replica.settings)
            or unfit_folder(replica, others=".gguf")
            or lacking(replica, self._version)
            or _unplaced(replica, self._environ)
        )

    def fingerprint(self, replica: DesiredReplica) -> object:
        """The program's and the model's: installing either may give hope."""
        path = self._program()
        return path and file_print(path), folder_print(replica)

    def command(self, replica: DesiredReplica, room: Room) -> Command:
        path = self._program()
        if path is None:
            raise FileNotFoundError(2, "vllm is not installed any more")
        place = Place(port=room.port, lora_rank_max=_lora_rank(replica))
        words = engine_arguments(replica, self._version, place)
        environ = {
            **offline_environ(replica),
            **own_folders(room),
            API_KEY_VARIABLE: room.api_key,
            PORT_VARIABLE: str(room.port),
            "VLLM_API_KEY": room.api_key,
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(private_folder(room.cache / "vllm")),
            "VLLM_LOGGING_LEVEL": "INFO",
            "VLLM_LOGGING_COLOR": "0",
            "PYTHONPATH": _guard_folder(self._environ),
        }
        if replica.settings.sleep:
            environ["VLLM_SERVER_DEV_MODE"] = "1"  # its other endpoints stay behind the guard
        master = LOOPBACK if replica.pipeline is None else replica.pipeline.master_host
        environ["VLLM_HOST_IP"] = own_address(master)
        if replica.settings.gpus == 0:
            threads = str(replica.threads or max(1, (room.cores - 1) // max(1, room.replicas)))
            environ |= {"OMP_NUM_THREADS": threads, "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
            if not any(_KV_CACHE in argument for argument in replica.settings.arguments):
                # Untold, it takes a share of all memory, as if nothing else ran on the host.
                environ["VLLM_CPU_KVCACHE_SPACE"] = _CPU_KV_CACHE_GIB
        guard = () if _follows(replica) else ("--middleware", _GUARD)
        serve = (*self._serve(path, replica.model_path), *guard, *words)
        if replica.pipeline is None or replica.settings.distributed != "ray":
            return Command(serve, environ)
        tokens = {name: self._environ[name] for name in _RAY_TOKENS if name in self._environ}
        head = f"{replica.pipeline.master_host}:{replica.pipeline.master_port}"
        environ |= {**tokens, "RAY_AUTH_MODE": "token", "RAY_ADDRESS": head}
        own = environ["VLLM_HOST_IP"]
        return Command(_ray(path, replica.pipeline, own, serve), environ)

    def end_reason(self, exit_code: int | None, log_tail: Sequence[str]) -> tuple[str, bool]:
        if exit_code == 2:  # argparse: a word it does not know
            return f"vLLM does not take its arguments: {last_error(log_tail)}.", True
        if exit_code is None or exit_code < 0:
            return ended(exit_code), False
        said = last_error(log_tail)
        # What it says of the model and its settings before it ever served stays as it is.
        lasting = any(text in said for text in ("ValidationError", "does not exist", "not support"))
        return f"vLLM ended: {said or f'exit code {exit_code}'}.", lasting

    def load(self, metrics: str) -> Load:
        names = (_RUNNING, _WAITING, _PROMPT, _GENERATED, _STEPS, _CACHE, _HITS, _PREFILL_S)
        figures = dict.fromkeys(names, 0.0)
        figures |= sums(metrics, figures)
        awake = labelled(metrics, _SLEEP, "sleep_state").get("awake", 1.0)
        return Load(
            requests=int(figures[_RUNNING] + figures[_WAITING]),
            progress=(figures[_PROMPT], figures[_GENERATED], figures[_STEPS]),
            prompt_tokens=int(figures[_PROMPT]),
            generated_tokens=int(figures[_GENERATED]),
            waiting=int(figures[_WAITING]),
            cache_used=figures[_CACHE],
            asleep=awake == 0.0,
            prefill=(figures[_PROMPT] - figures[_HITS], figures[_PREFILL_S]),
        )

    def properties(self, answer: Mapping[str, Any]) -> Properties:
        """The context as the engine has it; how many requests at once it does not tell."""
        return Properties(None, longest_context(answer))

    def _serve(self, path: Path, model: str) -> tuple[str, ...]:
        if self._python is None:
            return str(path), "serve", model
        return str(self._python), "-m", "vllm.entrypoints.openai.api_server", "--model", model

    def _program(self) -> Path | None:
        return program(VLLM_VARIABLE, "vllm", self._environ)


def _follows(replica: DesiredReplica) -> bool:
    """Whether this is a process of a replica on several nodes that serves nothing itself."""
    return replica.pipeline is not None and replica.pipeline.rank > 0


def _ray(path: Path, pipeline: Pipeline, own: str, serve: Sequence[str]) -> tuple[str, ...]:
    """This node's part of a cluster that lives as long as the replica, and the engine in it."""
    head = pipeline.rank == 0
    place = f"{pipeline.master_host}:{pipeline.master_port}"
    return (
        *(sys.executable, "-m", "agent.engines.ray_node"),
        *(pipeline.master_host, str(pipeline.master_port)),
        *(str(path.parent / "ray"), "start", "--block", "--disable-usage-stats"),
        *("--node-ip-address", own),
        *(("--head", "--port", str(pipeline.master_port)) if head else ("--address", place)),
        *(("--include-dashboard", "false", "--", *serve) if head else ()),
    )


def _unplaced(replica: DesiredReplica, environ: Mapping[str, str]) -> str | None:
    if replica.settings.distributed == "ray" and not any(map(environ.get, _RAY_TOKENS)):
        return (
            "Ray without a token runs what anybody on the network sends it. Put the same token on"
            f" each of these nodes, name its file with {_RAY_TOKENS[0]} and restart their agents."
        )
    if replica.settings.nodes > 1 and replica.pipeline is None:
        return "This replica is on several nodes and was not told its place among them."
    return None


def _guard_folder(environ: Mapping[str, str]) -> str:
    """Where the guard is found by vLLM's Python, before what is there already."""
    own = str(Path(__file__).parent / "guard")
    return os.pathsep.join(part for part in (own, environ.get("PYTHONPATH", "")) if part)


def _lora_rank(replica: DesiredReplica) -> int:
    """The highest rank of the adapters, as their own files tell."""
    return max((_rank(Path(lora.path)) for lora in replica.settings.loras), default=_LORA_RANK)


def _rank(folder: Path) -> int:
    try:
        said = msgspec.json.decode((folder / "adapter_config.json").read_bytes(), type=dict)
    except (OSError, msgspec.DecodeError):
        return _LORA_RANK  # the engine itself will say what is wrong with it
    return positive(said.get("r")) or _LORA_RANK
