"""Settings of engines as a deployment holds them: whether they can be meant, and as text."""

from typing import Final

import msgspec

from appliance.registry.engines import Engine
from appliance.registry.errors import InvalidValue
from appliance.registry.names import check_count
from appliance.wire.engine import EngineSettings
from appliance.wire.engine_refusals import unfit_settings

DEFAULTS: Final = EngineSettings()
GPUS_MAX: Final = 64  # of one replica on one node
NODES_MAX: Final = 64
QUEUE_MAX: Final = 1_000_000
ARGUMENTS_MAX: Final = 128
ARGUMENT_CHARS_MAX: Final = 4_096
LORAS_MAX: Final = 64
_TEXT_CHARS_MAX: Final = 1_024

_DECODER: Final = msgspec.json.Decoder(EngineSettings)


def settings_of(text: str) -> EngineSettings:
    """The settings in a column of that name."""
    return _DECODER.decode(text)


def settings_text(settings: EngineSettings) -> str:
    return msgspec.json.encode(settings).decode()


def check_settings(engine: Engine, settings: EngineSettings) -> EngineSettings:
    """`settings` themselves. Raises InvalidValue when an engine of that kind cannot have them."""
    if engine is Engine.EXTERNAL and settings != DEFAULTS:
        raise InvalidValue(
            "An external engine has its settings where it runs.",
            next_step="Leave out the options for GPUs, memory and arguments.",
        )
    check_count("The number of GPUs", settings.gpus, lowest=0, highest=GPUS_MAX)
    check_count("The number of nodes of a replica", settings.nodes, highest=NODES_MAX)
    if settings.nodes > 1 and engine is not Engine.VLLM:
        raise InvalidValue(
            f"A replica of the engine {engine} runs on one node.",
            next_step="Leave --nodes out, or use the engine vllm.",
        )
    if settings.nodes > 1 and settings.gpus == 0:
        raise InvalidValue(
            "A replica on several nodes needs GPUs on each of them.", next_step="Give --gpus."
        )
    fraction = settings.gpu_memory_fraction
    if fraction is not None and not 0 < fraction <= 1:
        raise InvalidValue(
            f"A share of a GPU's memory cannot be {fraction}.",
            next_step="Give --gpu-memory as a number above 0 and at most 1, as 0.9.",
        )
    if settings.gpu_layers is not None:
        if engine is not Engine.LLAMACPP:
            raise InvalidValue(
                f"The engine {engine} has all layers on its GPUs.",
                next_step="Leave --gpu-layers out; it is for llamacpp.",
            )
        check_count("The number of layers on GPUs", settings.gpu_layers, lowest=0, highest=10_000)
    if settings.queue_max is not None:
        check_count("The length of the engine's queue", settings.queue_max, highest=QUEUE_MAX)
    if settings.sleep and engine is not Engine.VLLM:
        raise InvalidValue(
            f"The engine {engine} cannot sleep.", next_step="Leave --sleep out, or use vllm."
        )
    _check_texts(settings)
    problem = unfit_settings(engine, settings)
    if problem is not None:
        raise InvalidValue(problem, next_step="Leave it out, or give another value.")
    return settings


def _check_texts(settings: EngineSettings) -> None:
    names = ("dtype", "quantization", "kv_cache_dtype", "tool_call_parser", "reasoning_parser")
    texts = [getattr(settings, name) for name in (*names, "chat_template")]
    texts += [text for lora in settings.loras for text in (lora.name, lora.path)]
    for text in texts:
        if text is not None and not (0 < len(text) <= _TEXT_CHARS_MAX and text.isprintable()):
            raise InvalidValue(
                "A setting of the engine is not acceptable.",
                next_step=f"Give one line of 1 to {_TEXT_CHARS_MAX} characters.",
            )
    if any(name is not None and name.startswith("-") for name in texts):
        raise InvalidValue(
            "A setting of the engine cannot begin with '-'.",
            next_step="Arguments of the engine go behind --arguments.",
        )
    if len(settings.loras) > LORAS_MAX or len(settings.arguments) > ARGUMENTS_MAX:
        raise InvalidValue(
            "The engine has more adapters or arguments than can be meant.",
            next_step=f"Give at most {LORAS_MAX} adapters and {ARGUMENTS_MAX} arguments.",
        )
    for argument in settings.arguments:
        if len(argument) > ARGUMENT_CHARS_MAX or "\0" in argument:
            raise InvalidValue(
                "An argument of the engine cannot be passed on.",
                next_step=f"Give at most {ARGUMENT_CHARS_MAX} characters, none of them NUL.",
            )
