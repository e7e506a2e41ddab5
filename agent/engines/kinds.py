"""The kinds of engines this release of the agent knows, by name."""

from agent.engines.kind import Kinds
from agent.engines.llamacpp import LlamaCpp


def known_kinds() -> Kinds:
    """Installed here or not: one that is not says so when it is asked to run."""
    return {kind.name: kind for kind in (LlamaCpp(),)}


def unknown(engine: str) -> str:
    """Why a replica of this engine cannot run here."""
    return f"This agent cannot run the engine {engine}. Run a newer release of it."
