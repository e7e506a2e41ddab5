"""`cic` run inside the test: its exit code, and what it wrote."""

import contextlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from appliance.cli import main


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The error of a command that was run with --json."""
        body: dict[str, dict[str, str]] = self.json
        assert set(body) == {"error"}
        assert set(body["error"]) == {"code", "message", "next_step"}
        return body["error"]


def cic(*arguments: object, stdin: str = "", environ: Mapping[str, str] | None = None) -> Done:
    """Run `cic ARGUMENTS` with standard streams that are no terminals."""
    out, err = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    source = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    with (
        patch.dict(os.environ, environ or {}),
        patch("sys.stdin", source),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main([str(argument) for argument in arguments])
    return Done(int(code), _written(out), _written(err))


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    raw = stream.buffer
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode()
