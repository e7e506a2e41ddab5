"""What the answers and ends of every kind of engine have in common."""

import json
from typing import Any

from agent.engines.kind import Address


def ready_address(ready_line: bytes) -> Address | None:
    """Where the engine listens, from its first line; None: that is no such line."""
    try:
        message = json.loads(ready_line)
        return Address(str(message["host"]), int(message["port"]))
    except (ValueError, KeyError, TypeError):
        return None


def ended(exit_code: int | None) -> str:
    """Why a process ended whose output tells nothing better."""
    if exit_code is None:
        return "The engine ended; an earlier agent had started it, so nobody knows how."
    if exit_code == -9:
        return "The engine was killed (signal 9), perhaps for want of memory."
    if exit_code < 0:
        return f"The engine crashed (signal {-exit_code})."
    return f"The engine ended with exit code {exit_code}."


def positive(value: Any) -> int | None:
    """A count that an engine reported, if it is one."""
    return value if isinstance(value, int) and value > 0 else None
