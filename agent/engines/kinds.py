"""The kinds of engines this release of the agent knows, by name."""

from collections.abc import Mapping

from agent.engines.kind import Kinds
from agent.engines.llamacpp import LlamaCpp
from agent.engines.sglang import SGLang
from agent.engines.vllm import Vllm


def known_kinds(environ: Mapping[str, str]) -> Kinds:
    """Installed here or not: one that is not says so when it is asked to run."""
    return {kind.name: kind for kind in (LlamaCpp(environ), Vllm(environ), SGLang(environ))}


def unknown(engine: str) -> str:
    """Why a replica of this engine cannot run here."""
    return f"This agent cannot run the engine {engine}. Run a newer release of it."
