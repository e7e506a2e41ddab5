"""What an engine is never told: settings that make no sense, arguments that open it or leak.

Arguments nobody here knows are passed on: engines grow new ones each month. Refused are those that
carry secrets where every account can read them, open an endpoint or an address, run code that came
with a model, send data off the host, write requests into logs, or take over what the appliance
itself sets and counts on. One check for both sides: the appliance refuses at once, and the agent,
that runs the words, refuses again.
"""

import re
from collections.abc import Mapping
from typing import Final

from appliance.wire.engine import EngineSettings

ARGUMENTS_MAX: Final = 128
ARGUMENT_CHARS_MAX: Final = 4096
GPUS_MAX: Final = 64
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")

_READABLE: Final = "every account of the node can read a command line; the agent makes its own key"
_ADDRESS: Final = "engines listen on the loopback address alone, where the agent puts them"
_CODE: Final = "it would run code from outside the engine"
_LEAK: Final = "it would write or send requests where they do not belong"
_FILES: Final = "requests could read files of the node, or have it fetch addresses"
_OPEN: Final = "it opens an endpoint that is meant for development"
_BLIND: Final = "the agent could no longer see whether the engine works"
_HUB: Final = "models come from the site's own store, never from a hub"

_VLLM: Final[Mapping[str, str]] = {
    **dict.fromkeys(("--api-key", "--hf-token"), _READABLE),
    **dict.fromkeys(("--host", "--port", "--uds", "--fd", "--root-path", "--grpc"), _ADDRESS),
    **dict.fromkeys(
        ("--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-cert-reqs", "--ssl-ciphers"),
        _ADDRESS,
    ),
    **dict.fromkeys(
        ("--allow-credentials", "--allowed-origins", "--allowed-methods", "--allowed-headers"),
        _ADDRESS,
    ),
    **dict.fromkeys(
        (
            *("--trust-remote-code", "--middleware", "--tool-parser-plugin"),
            *("--reasoning-parser-plugin", "--io-processor-plugin", "--logits-processors"),
            *("--worker-cls", "--worker-extension-cls", "--scheduler-cls", "--code-revision"),
            *("--trust-request-chat-template", "--model-class-overrides"),
            *("--hf-config-path", "--load-format"),
        ),
        _CODE,
    ),
    **dict.fromkeys(
        ("--allowed-local-media-path", "--allowed-media-domains", "--tool-server"), _FILES
    ),
    **dict.fromkeys(
        (
            *("--enable-log-requests", "--enable-log-outputs", "--enable-log-deltas"),
            *("--log-config-file", "--otlp-traces-endpoint", "--collect-detailed-traces"),
            *("--kv-events-config", "--kv-transfer-config", "--ec-transfer-config"),
            *("--logging-config", "--log-level", "--log-error-stack", "--enable-trace-replay"),
            *("--trust-request-mm-kwargs", "--weight-transfer-config", "--enable-prompt-embeds"),
        ),
        _LEAK,
    ),
    **dict.fromkeys(
        ("--enable-tokenizer-info-endpoint", "--profiler-config", "--enable-scale-out"), _OPEN
    ),
    **dict.fromkeys(
        ("--disable-log-stats", "--tokens-only", "--return-tokens-as-token-ids"), _BLIND
    ),
    **dict.fromkeys(("--revision", "--tokenizer-revision", "--download-dir"), _HUB),
    "--tokenizer": "a model brings its own tokenizer",
    **dict.fromkeys(("--api-server-count", "-asc"), "the agent counts on one front process"),
    "--config": "what it says could not be checked; give its arguments here",
    "--model": "the deployment's own setting is --model",
    "--served-model-name": "the engine serves the deployment's name",
    "--max-model-len": "the deployment's own setting is --context",
    "--max-num-seqs": "the deployment's own setting is --parallel",
    "--tensor-parallel-size": "the deployment's own setting is --gpus",
    "-tp": "the deployment's own setting is --gpus",
    "--pipeline-parallel-size": "the deployment's own setting is --nodes",
    "-pp": "the deployment's own setting is --nodes",
    "--gpu-memory-utilization": "the deployment's own setting is --gpu-memory",
    "--device-memory-utilization": "the deployment's own setting is --gpu-memory",
    "--device-ids": "the appliance assigns the GPUs",
    "--enable-lora": "the deployment's own setting is --lora",
    "--lora-modules": "the deployment's own setting is --lora",
    "--enable-sleep-mode": "the deployment's own setting is --sleep",
    "--shutdown-timeout": "the agent drains its engines itself",
    **dict.fromkeys(
        (
            *("--nnodes", "--node-rank", "--master-addr", "--master-port", "--headless"),
            *("--distributed-executor-backend", "--data-parallel-address", "-dpa"),
            *("--data-parallel-rpc-port", "-dpp", "--data-parallel-backend", "-dpb"),
        ),
        "the appliance places an engine on its nodes itself",
    ),
}
_SGLANG: Final[Mapping[str, str]] = {
    **dict.fromkeys(("--api-key", "--admin-api-key", "--ssl-keyfile-password"), _READABLE),
    **dict.fromkeys(
        (
            "--host",
            "--port",
            "--grpc-mode",
            "--smg-grpc-mode",
            "--ssl-keyfile",
            "--ssl-certfile",
            "--fastapi-root-path",
        ),
        _ADDRESS,
    ),
    **dict.fromkeys(
        (
            *("--trust-remote-code", "--enable-custom-logit-processor", "--custom-sigquit-handler"),
            *("--forward-hooks", "--custom-weight-loader", "--model-loader-extra-config"),
            *("--hicache-storage-backend-extra-config", "--load-format"),
        ),
        _CODE,
    ),
    "--delete-ckpt-after-loading": "it deletes the model",
    **dict.fromkeys(
        (
            *("--log-requests", "--log-requests-level", "--enable-trace", "--otlp-traces-endpoint"),
            *("--crash-dump-folder", "--kv-events-config", "--export-metrics-to-file"),
            *("--bucket-time-to-first-token", "--remote-instance-weight-loader-seed-instance-ip"),
            *("--oltp-traces-endpoint", "--hicache-storage-backend", "--disaggregation-mode"),
            "--enable-return-hidden-states",
        ),
        _LEAK,
    ),
    **dict.fromkeys(
        (
            "--enable-nccl-nvls-debug",
            "--debug-tensor-dump-output-folder",
            "--debug-tensor-dump-inject",
        ),
        _OPEN,
    ),
    **dict.fromkeys(("--revision", "--download-dir"), _HUB),
    "--config": "what it says could not be checked; give its arguments here",
    **dict.fromkeys(("--model-path", "--model"), "the deployment's own setting is --model"),
    "--served-model-name": "the engine serves the deployment's name",
    "--context-length": "the deployment's own setting is --context",
    "--max-running-requests": "the deployment's own setting is --parallel",
    **dict.fromkeys(
        ("--tp-size", "--tp", "--tensor-parallel-size"), "the deployment's own setting is --gpus"
    ),
    "--mem-fraction-static": "the deployment's own setting is --gpu-memory",
    **dict.fromkeys(("--enable-lora", "--lora-paths"), "the deployment's own setting is --lora"),
    **dict.fromkeys(
        ("--nnodes", "--node-rank", "--dist-init-addr", "--nccl-init-addr"),
        "an engine of this kind runs on one node",
    ),
}
_LLAMACPP: Final[Mapping[str, str]] = {
    **dict.fromkeys(("--api-key", "--api-key-file", "--hf-token", "-hft"), _READABLE),
    **dict.fromkeys(
        ("--host", "--port", "--api-prefix", "--ssl-key-file", "--ssl-cert-file", "--path"),
        _ADDRESS,
    ),
    **dict.fromkeys(("--rpc", "--tools", "--agent"), _CODE),
    **dict.fromkeys(
        (
            *("--media-path", "--slot-save-path", "--models-dir"),
            *("--webui-config-file", "--ui-config-file"),
        ),
        _FILES,
    ),
    **dict.fromkeys(
        (
            *("--log-file", "--verbose", "-v", "--log-verbose", "--verbosity", "-lv"),
            *("--log-verbosity", "--log-prompts-dir", "--verbose-prompt"),
            *("--lookup-cache-dynamic", "-lcd", "--cors-origins"),
        ),
        _LEAK,
    ),
    **dict.fromkeys(
        (
            *("--props", "--webui", "--ui", "--models-preset", "--webui-mcp-proxy"),
            "--ui-mcp-proxy",
        ),
        _OPEN,
    ),
    **dict.fromkeys(("--no-slots", "--log-disable"), _BLIND),
    **dict.fromkeys(
        (
            *("--hf-repo", "-hf", "-hfr", "--hf-file", "-hff", "--model-url", "-mu"),
            *("--hf-repo-draft", "-hfd", "--hf-repo-v", "-hfv", "--hf-file-v", "-hffv"),
            *("--docker-repo", "-dr", "--mmproj-url", "-mmu"),
            *("--spec-draft-hf", "--spec-draft-model-url"),
        ),
        _HUB,
    ),
    **dict.fromkeys(("--model", "-m"), "the deployment's own setting is --model"),
    **dict.fromkeys(("--alias", "-a"), "the engine serves the deployment's name"),
    **dict.fromkeys(("--ctx-size", "-c"), "the deployment's own setting is --context"),
    **dict.fromkeys(("--parallel", "-np"), "the deployment's own setting is --parallel"),
    **dict.fromkeys(("--threads", "-t"), "the deployment's own setting is --threads"),
    **dict.fromkeys(
        ("--n-gpu-layers", "--gpu-layers", "-ngl"), "the deployment's own setting is --gpu-layers"
    ),
}
_REFUSED: Final[Mapping[str, Mapping[str, str]]] = {
    "vllm": _VLLM,
    "sglang": _SGLANG,
    "llamacpp": _LLAMACPP,
    "external": {},
}
# The parsers of these engines take any beginning of a long flag that fits one alone for it.
_ABBREVIATE: Final = frozenset({"vllm", "sglang"})
# Full flags of their own that a refused one begins with.
_NOT_ABBREVIATIONS: Final = frozenset({"--lora", "--ssl", "--enable-log"})
# Settings of vLLM's compiler that name a function to import.
_CODE_BY_NAME: Final = ("_custom_pre_pass", "_custom_post_pass")
_ABBREVIATION_CHARS_MIN: Final = 4
# Of vLLM's compiler: the name of one of its own backends, not of a function of some module.
_BARE: Final = re.compile(r"[a-z0-9_]*")
_IMPORTED: Final = re.compile(r"""["']?backend["']?\s*:\s*["'][^"']*[^a-z0-9_"'][^"']*["']""")


def refused_argument(engine: str, arguments: tuple[str, ...]) -> str | None:
    """The first argument that is not passed on, with the reason; None: all may be."""
    if len(arguments) > ARGUMENTS_MAX:
        return f"There are {len(arguments)} arguments; at most {ARGUMENTS_MAX} are passed on."
    if arguments and engine == "external":
        return "An external engine is started by others: it takes no arguments."
    for place, argument in enumerate(arguments):
        if len(argument) > ARGUMENT_CHARS_MAX or not argument.isprintable():
            return f"Argument {place + 1} is too long, or holds characters nobody can see."
        inside = _inside(engine, argument)
        if inside is not None:
            return f"Argument {place + 1} sets {inside} within another: it is not passed on."
        flag = _flag(argument)
        if flag is None:
            if place == 0:
                return f"Arguments begin with a flag; {argument!r} is none."
            continue
        if flag == "--":
            return "The argument -- is not passed on: it would end the flags."
        why = _why(engine, flag)
        if why is not None:
            return f"The argument {flag} is not passed on: {why}."
    return None


def _flag(argument: str) -> str | None:
    """The flag as its engine reads it, without a value; None: it is a value."""
    if not argument.startswith("-") or re.fullmatch(r"-\d+(\.\d+)?", argument):
        return None
    flag = argument.split("=", 1)[0]
    if not flag.startswith("--"):
        return flag
    # `--a.b c` sets one key of a JSON argument; underscores are hyphens; `--no-x` is x.
    return flag.split(".", 1)[0].replace("_", "-").lower()


def _inside(engine: str, argument: str) -> str | None:
    """A refused setting named within a JSON argument, or behind a dot; None: there is none."""
    name, equals, value = argument.partition("=")
    path = name.partition(".")[2] if argument.startswith("-") else ""
    value = value if equals and argument.startswith("-") else argument
    if "{" in value and "\\" in value:
        return "something written with \\, which could be any name"
    text = path + " " + (value if "{" in value or "[" in value else "")
    if _IMPORTED.search(text) or (path.endswith("backend") and not _BARE.fullmatch(value)):
        return "a backend that would be imported"
    words = set(re.findall(r"[a-z0-9]+(?:_[a-z0-9]+)+", text.replace("-", "_").lower()))
    for full, why in _REFUSED[engine].items():
        if why in {_CODE, _READABLE, _LEAK} and full[2:].replace("-", "_") in words:
            return full
    return next((word for word in words if word.endswith(_CODE_BY_NAME)), None)


def _why(engine: str, flag: str) -> str | None:
    refused = _REFUSED[engine]
    names = [flag]
    if flag.startswith("--no-"):
        names.append("--" + flag.removeprefix("--no-"))
    for name in names:
        if name in refused:
            return refused[name]
        if not name.startswith("--"):
            joined = _joined(refused, name)
            if joined is not None:
                return joined
            continue
        if engine not in _ABBREVIATE or name in _NOT_ABBREVIATIONS:
            continue
        if len(name) < _ABBREVIATION_CHARS_MIN:
            return "it is too short to tell which argument it stands for"
        for full, why in refused.items():
            if full.startswith(name):
                return f"it may stand for {full}, and {why}"
    return None


def _joined(refused: Mapping[str, str], name: str) -> str | None:
    """Of a short flag with its value in the same word, as in `-tp4`."""
    found = re.fullmatch(r"(-[A-Za-z]+)\d+", name)
    return refused.get(found[1]) if found else None


def unfit_settings(engine: str, settings: EngineSettings) -> str | None:
    """Why an engine of this kind cannot have these settings, with what to do; None: it can."""
    for problem in (
        _unfit_gpus(engine, settings),
        _unfit_words(engine, settings),
        _unfit_loras(engine, settings),
        refused_argument(engine, settings.arguments),
    ):
        if problem is not None:
            return problem
    return None


def _unfit_gpus(engine: str, settings: EngineSettings) -> str | None:
    fraction, layers = settings.gpu_memory_fraction, settings.gpu_layers
    if engine == "external" and settings != EngineSettings():
        return "An external engine is started by others: it takes no settings."
    if not 0 <= settings.gpus <= GPUS_MAX:
        return f"A replica has 0 to {GPUS_MAX} GPUs on a node, not {settings.gpus}."
    if settings.nodes < 1 or (settings.nodes > 1 and engine != "vllm"):
        return f"An engine {engine} cannot run on {settings.nodes} nodes; vllm can on several."
    if settings.distributed == "ray" and engine != "vllm":
        return f"Ray launches vllm, not {engine}."
    if fraction is not None and (engine == "llamacpp" or not 0 < fraction <= 1):
        return "A share of GPU memory is over 0, at most 1, and of vllm or sglang."
    if layers is not None and (engine != "llamacpp" or layers < 0):
        return "Layers on GPUs are a number of llamacpp's, 0 or more."
    if settings.sleep and (engine != "vllm" or settings.gpus == 0):
        return "Only a vllm that has GPUs can sleep."
    if settings.sleep and settings.nodes > 1:
        return "An engine on several nodes cannot sleep."
    if settings.queue_max is not None and settings.queue_max < 0:
        return "A queue has 0 places or more."
    return None


def _unfit_words(engine: str, settings: EngineSettings) -> str | None:
    parsers = (settings.tool_call_parser, settings.reasoning_parser)
    words = (settings.dtype, settings.quantization, settings.kv_cache_dtype, *parsers)
    for word in words:
        if word is not None and not _WORD.fullmatch(word):
            return f"{word!r} is no name of a type or parser: letters, digits, dots, _ and -."
    if engine == "llamacpp" and any((settings.dtype, settings.quantization, *parsers)):
        return (
            "llamacpp takes types from the model's file and finds the parsers itself: leave dtype,"
            " quantization and parsers out."
        )
    template = settings.chat_template
    if template is not None and not _absolute(template):
        return f"The chat template {template!r} is not an absolute path of a file."
    return None


def _unfit_loras(engine: str, settings: EngineSettings) -> str | None:
    if settings.loras and engine not in {"vllm", "sglang"}:
        return f"The engine {engine} takes no adapters here; vllm and sglang do."
    names = [lora.name for lora in settings.loras]
    if len(set(names)) != len(names):
        return "Two adapters have the same name."
    for lora in settings.loras:
        if not _NAME.fullmatch(lora.name):
            return f"{lora.name!r} is no name of a model."
        if not _absolute(lora.path):
            return f"The adapter {lora.name} needs the absolute path of its folder."
    return None


def _absolute(path: str) -> bool:
    return path.startswith("/") and path.isprintable()
