"""Options of `cic deployment create` and `update` that settle engines and their places."""

import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, get_args

import click
import msgspec

from appliance.commands.context import Refused
from appliance.wire.command import ExitCode
from appliance.wire.engine import EngineSettings, Lora
from appliance.wire.fleet import Strategy

C = TypeVar("C", bound=Callable[..., Any])

# The option's name, the setting's, its kind and its help. None and "" are different: "" takes a
# setting away.
_PLAIN: Final[tuple[tuple[str, str, Any, str], ...]] = (
    ("--gpus", "gpus", click.IntRange(min=0), "GPUs of one replica on each of its nodes; 0: none."),
    ("--nodes", "nodes", click.IntRange(min=1), "vllm: nodes that one replica spans."),
    ("--distributed", "distributed", click.Choice(["own", "ray"]), "vllm: how it spans nodes."),
    (
        "--gpu-memory",
        "gpu_memory_fraction",
        click.FloatRange(0, 1, min_open=True),
        "Share of each GPU's memory, as 0.9 (vllm, sglang).",
    ),
    ("--gpu-layers", "gpu_layers", click.IntRange(min=0), "llamacpp: layers on GPUs; else all."),
    ("--dtype", "dtype", str, "Type of the weights, as bfloat16."),
    ("--quantization", "quantization", str, "How the weights are quantised, as awq."),
    ("--kv-cache-dtype", "kv_cache_dtype", str, "Type of the KV cache, as fp8 or q8_0."),
    ("--tool-call-parser", "tool_call_parser", str, "As the model's family writes tool calls."),
    ("--reasoning-parser", "reasoning_parser", str, "As the model's family writes its reasoning."),
    ("--chat-template", "chat_template", str, "Path of a chat template on the nodes."),
    ("--queue-max", "queue_max", click.IntRange(min=1), "Requests that wait in the engine."),
)


def engine_options(command: C) -> C:
    """Give a command the settings of an engine."""
    command = click.option(
        "--arguments",
        metavar="'--ARGUMENT VALUE …'",
        help="Passed to the engine as they are, in a shell's quotes.",
    )(command)
    command = click.option(
        "--lora", "loras", metavar="NAME=PATH", multiple=True, help="An adapter. Repeatable."
    )(command)
    command = click.option(
        "--sleep/--no-sleep", default=None, help="vllm: can give its GPU memory back and wake."
    )(command)
    for option, name, kind, text in reversed(_PLAIN):
        command = click.option(option, name, type=kind, default=None, help=text)(command)
    return command


def placement_options(command: C) -> C:
    """Give a command where and how replicas come and go."""
    command = click.option(
        "--idle-unload",
        type=click.IntRange(min=0),
        metavar="SECONDS",
        help="Unload the engines after 10 to 2592000 s (30 days) without a request; 0: never.",
    )(command)
    command = click.option(
        "--pin", metavar="NODE,NODE", help='The only nodes it may run on; "": any.'
    )(command)
    return click.option(
        "--strategy",
        type=click.Choice(get_args(Strategy)),
        help="surge: the new replica first; recreate: the old one goes first; auto: as room is.",
    )(command)


def changed_settings(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the options change of an engine's settings; None: nothing."""
    names = [name for _, name, _, _ in _PLAIN]
    changes = {name: options[name] for name in (*names, "sleep") if options[name] is not None}
    changes = {name: None if value == "" else value for name, value in changes.items()}
    if options["arguments"] is not None:
        changes["arguments"] = _arguments(options["arguments"])
    if options["loras"]:
        given = [lora for lora in options["loras"] if lora]  # `--lora ""` takes them away
        changes["loras"] = [msgspec.to_builtins(_lora(lora)) for lora in given]
    return changes or None


def new_settings(options: Mapping[str, Any]) -> EngineSettings:
    """The settings of a new engine."""
    changes = changed_settings(options) or {}
    return msgspec.convert({k: v for k, v in changes.items() if v is not None}, EngineSettings)


def _arguments(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise Refused(
            "usage",
            f"--arguments cannot be read: {error}.",
            next_step="Close every quote, as a shell wants it.",
            exit_code=ExitCode.USAGE,
        ) from error


def _lora(text: str) -> Lora:
    name, _, path = text.partition("=")
    if not name or not path:
        raise Refused(
            "usage",
            f"{text!r} does not name an adapter.",
            next_step="Write --lora NAME=/PATH/ON/THE/NODE.",
            exit_code=ExitCode.USAGE,
        )
    return Lora(name=name, path=path)
