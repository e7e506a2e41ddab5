"""SGLang as an engine: launched offline and behind a key; what its figures and ends mean."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agent.engines.exposition import sums
from agent.engines.kind import Load, Properties, Room
from agent.engines.launching import offline_environ, own_folders, private_folder
from agent.engines.programs import (
    SGLANG_VARIABLE,
    own_python,
    package,
    program,
    python_of,
)
from agent.engines.readings import (
    ended,
    file_print,
    folder_print,
    last_error,
    longest_context,
    unfit_folder,
)
from agent.engines.variables import API_KEY_VARIABLE, PORT_VARIABLE
from agent.processes import Command
from appliance.wire.agent import DesiredReplica
from appliance.wire.engine_arguments import Place, engine_arguments, lacking
from appliance.wire.engine_refusals import unfit_settings

_INSTALL: Final = (
    f"Install SGLang into an environment of its own and name its Python with {SGLANG_VARIABLE}."
)
_RUNNING: Final = "sglang:num_running_reqs"
_WAITING: Final = "sglang:num_queue_reqs"
_PROMPT: Final = "sglang:prompt_tokens_total"  # those out of its cache included
_GENERATED: Final = "sglang:generation_tokens_total"
_CACHE: Final = "sglang:token_usage"


class SGLang:
    """Runs `python -m sglang.launch_server`, a process group of its own."""

    name: Final = "sglang"
    health_path: Final = "/health"
    properties_path: Final = "/v1/models"
    load_path: Final = None
    # Their titles, as SGLang sets them (setproctitle in its scheduler and detokenizer).
    members: Final = ("sglang::scheduler", "sglang::detokenizer")
    sleep_path: Final = None
    wake_path: Final = None
    probe_fields: Final[Mapping[str, Any]] = {}

    def __init__(self, environ: Mapping[str, str]) -> None:
        """`environ` is the agent's own."""
        self._environ = environ
        self._version: str | None = None

    def version(self) -> str | None:
        python = self._python()
        found = None if python is None else package(python, "sglang")
        self._version = None if found is None else found.version
        return self._version

    def hopeless(self, replica: DesiredReplica) -> str | None:
        if self._python() is None:
            return f"The engine sglang is not installed on this node. {_INSTALL}"
        if self._version is None:
            return (
                "SGLang was installed after this agent started, or does not tell its version."
                " Restart the agent; engines that run stay."
            )
        return (
            unfit_settings("sglang", replica.settings)
            or unfit_folder(replica, others=".gguf")
            or lacking(replica, self._version)
        )

    def fingerprint(self, replica: DesiredReplica) -> object:
        python = self._python()
        return python and file_print(python), folder_print(replica)

    def command(self, replica: DesiredReplica, room: Room) -> Command:
        python = self._python()
        if python is None:
            raise FileNotFoundError(2, "sglang is not installed any more")
        # The key by a file of ours: SGLang takes it by no variable, and a command line is public.
        config = private_folder(room.folder) / "sglang.yaml"
        config.unlink(missing_ok=True)
        config.touch(mode=0o600, exist_ok=False)
        config.write_text(json.dumps({"api-key": room.api_key}))  # JSON is YAML
        environ = {
            **offline_environ(replica),
            **own_folders(room),
            API_KEY_VARIABLE: room.api_key,
            PORT_VARIABLE: str(room.port),
        }
        words = engine_arguments(replica, self._version, Place(port=room.port))
        serve = (str(python), "-m", "sglang.launch_server", "--config", str(config), *words)
        return Command(serve, environ)

    def end_reason(self, exit_code: int | None, log_tail: Sequence[str]) -> tuple[str, bool]:
        if exit_code == 2:  # argparse: a word it does not know
            return f"SGLang does not take its arguments: {last_error(log_tail)}.", True
        if exit_code is None or exit_code < 0:
            return ended(exit_code), False
        said = last_error(log_tail)
        return f"SGLang ended: {said or f'exit code {exit_code}'}.", False

    def load(self, metrics: str) -> Load:
        figures = dict.fromkeys((_RUNNING, _WAITING, _PROMPT, _GENERATED, _CACHE), 0.0)
        figures |= sums(metrics, figures)
        return Load(
            requests=int(figures[_RUNNING] + figures[_WAITING]),
            # Its counters grow when a request ends; the used share of its cache, as it decodes.
            progress=(figures[_PROMPT], figures[_GENERATED], figures[_CACHE]),
            prompt_tokens=int(figures[_PROMPT]),
            generated_tokens=int(figures[_GENERATED]),
            waiting=int(figures[_WAITING]),
            cache_used=figures[_CACHE],
        )

    def properties(self, answer: Mapping[str, Any]) -> Properties:
        """The context as the engine has it; how many requests at once it does not tell."""
        return Properties(None, longest_context(answer))

    def _python(self) -> Path | None:
        named = self._environ.get(SGLANG_VARIABLE)
        if named:
            return program(SGLANG_VARIABLE, "python", self._environ)
        beside = program(SGLANG_VARIABLE, "sglang", self._environ)
        return own_python("sglang") or (python_of(beside) if beside else None)
