"""What every engine finds in its environment, whatever it calls these things itself.

It is how an agent finds again what it, or an earlier agent, started.
"""

from collections.abc import Mapping
from typing import Final

API_KEY_VARIABLE: Final = "CROSSLOGIC_ENGINE_API_KEY"
PORT_VARIABLE: Final = "CROSSLOGIC_ENGINE_PORT"  # absent: the engine's ready line tells it


def api_key_of(environ: Mapping[str, str]) -> str | None:
    """The key an engine was started with, from the environment of its process."""
    return environ.get(API_KEY_VARIABLE)


def port_of(environ: Mapping[str, str]) -> int | None:
    """The port an engine was told to listen on; None: it chose one itself."""
    text = environ.get(PORT_VARIABLE, "")
    return int(text) if text.isdecimal() else None
