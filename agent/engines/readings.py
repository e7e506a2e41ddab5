"""What the answers and ends of every kind of engine have in common."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agent.engines.kind import Address
from appliance.wire.agent import DesiredReplica

_REASON_CHARS_MAX: Final = 400
# The last line of a Python traceback, whatever a logger puts before it: "ValueError: why".
_EXCEPTION: Final = re.compile(r"(?:^|[\s\]])((?:\w+\.)*\w*(?:Error|Exception|Interrupt)): (.+)$")
_COMPLAINT: Final = re.compile(r"\berror: (.+)$")  # argparse
# What a front process says when the process behind it has said why.
_ECHOES: Final = ("Engine core initialization failed", "See root cause above", "EngineDeadError")


def ready_address(ready_line: bytes) -> Address | None:
    """Where the engine listens, from its first line; None: that is no such line."""
    try:
        message = json.loads(ready_line)
        return Address(str(message["host"]), int(message["port"]))
    except (ValueError, KeyError, TypeError):
        return None


def ready_caveat(ready_line: bytes) -> str:
    """What a person must know of an engine that serves, from its first line; "": nothing."""
    try:
        return str(json.loads(ready_line).get("caveat", ""))
    except (ValueError, AttributeError):
        return ""


def ended(exit_code: int | None) -> str:
    """Why a process ended whose output tells nothing better."""
    if exit_code is None:
        return "The engine ended. Exit code unknown: adopted, another agent's child."
    if exit_code == -9:
        return "The engine was killed (signal 9), perhaps for want of memory."
    if exit_code < 0:
        return f"The engine crashed (signal {-exit_code})."
    return f"The engine ended with exit code {exit_code}."


def positive(value: Any) -> int | None:
    """A count that an engine reported, if it is one."""
    return value if isinstance(value, int) and value > 0 else None


def last_error(log_tail: Sequence[str]) -> str:
    """The last error in a Python engine's output that tells a cause; empty: there is none."""
    for line in reversed(log_tail):
        if any(echo in line for echo in _ECHOES):
            continue
        found = _EXCEPTION.search(line)
        if found:
            return f"{found[1].rpartition('.')[2]}: {found[2]}"[:_REASON_CHARS_MAX].rstrip(". ")
        complaint = _COMPLAINT.search(line)
        if complaint:
            return complaint[1][:_REASON_CHARS_MAX].rstrip(". ")
    return ""


def unfit_folder(replica: DesiredReplica, *, others: str) -> str | None:
    """Why this is no folder of weights; a file is let pass where its name ends in `others`."""
    path = Path(replica.model_path)
    if not path.is_absolute():
        return f"{path} is not an absolute path. Give the deployment a model of this node."
    if path.is_file() and path.suffix == others:
        return None
    try:
        with (path / "config.json").open("rb"):
            return None
    except NotADirectoryError:
        return f"{path} is a file. Give the deployment a folder with config.json and the weights."
    except OSError as error:
        return (
            f"The model's {path / 'config.json'} cannot be read: {error.strerror}."
            " Put it back, or give the deployment another model."
        )


FilePrint = tuple[int, int, int]


def file_print(path: Path) -> FilePrint | None:
    """Changes when the file or folder does; None: it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def folder_print(replica: DesiredReplica) -> tuple[FilePrint | None, FilePrint | None]:
    """Changes when the model's folder or its configuration does."""
    path = Path(replica.model_path)
    return file_print(path), file_print(path / "config.json")


def longest_context(answer: Mapping[str, Any]) -> int | None:
    """Of one request, in tokens, as GET /v1/models of vLLM and SGLang tells it."""
    models = answer.get("data")
    first = models[0] if isinstance(models, list) and models else None
    return positive(first.get("max_model_len")) if isinstance(first, dict) else None
