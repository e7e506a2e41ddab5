"""`cic` as a child of the console: how actions are carried out, and what `:` runs.

A child has no terminal and a session of its own, so nothing it does reaches the screen. What
changes the site is never cut off by closing the console: the appliance does it, not the child.
"""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.wire.home import Home

# Read by `cic` where it changes something: the same key twice is carried out once.
KEY_VARIABLE: Final = "CIC_IDEMPOTENCY_KEY"
_LINE_BYTES_MAX: Final = 1024 * 1024
_ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
_END_S: Final = 5.0
_NOT_STARTED: Final = 127  # as a shell has it


class _Refusal(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""
    next_step: str = ""


class _Refused(msgspec.Struct, frozen=True):
    error: _Refusal


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended. `answer` is its JSON, None where it printed none."""

    argv: tuple[str, ...]
    exit_code: int
    answer: Any = None
    code: str = ""
    message: str = ""
    next_step: str = ""
    lines: tuple[str, ...] = field(default=())  # the last of what it told while it worked

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    @property
    def sentence(self) -> str:
        return f"{self.message} {self.next_step}".strip()


def twin(home: Home, arguments: Sequence[str]) -> str:
    """The command line that does the same, as it can be typed."""
    return shlex.join(("cic", *_home(home, arguments), *arguments))


def command(home: Home, arguments: Sequence[str]) -> list[str]:
    """What is started: the `cic` beside this interpreter."""
    beside = Path(sys.executable).with_name("cic")
    program = [str(beside)] if beside.exists() else [sys.executable, "-m", "appliance.cli"]
    return [*program, *_home(home, arguments), *arguments]


def _home(home: Home, arguments: Sequence[str]) -> tuple[str, ...]:
    """What names the home; nothing where the arguments name another one themselves."""
    return () if arguments[:1] and arguments[0] == "--home" else home.arguments


class Children:
    """Starts `cic` for a home. `environ` is the console's own environment."""

    def __init__(self, home: Home, environ: Mapping[str, str] = os.environ) -> None:
        self._home = home
        self._environ = {
            **{name: value for name, value in environ.items() if name != KEY_VARIABLE},
            # A child writes for a pane of the console, not for a terminal.
            "NO_COLOR": "1",
            "TERM": "dumb",
            "PYTHONUNBUFFERED": "1",
        }

    def twin(self, arguments: Sequence[str]) -> str:
        return twin(self._home, arguments)

    async def act(
        self,
        arguments: Sequence[str],
        *,
        key: str,
        stdin: str = "",
        on_line: Callable[[str], None] = lambda _line: None,
    ) -> Outcome:
        """Run it with `--json`; its messages go to `on_line` as they come."""
        said: list[str] = []

        def hear(line: str) -> None:
            said.append(line)
            del said[:-50]
            on_line(line)

        argv = (*arguments, "--json")
        answer = bytearray()
        try:
            code = await self._run(argv, stdin, {KEY_VARIABLE: key}, answer, hear)
        except OSError as error:
            return Outcome(tuple(arguments), _NOT_STARTED, None, "failed", _not_started(error))
        return _outcome(tuple(arguments), code, bytes(answer), said)

    async def follow(self, arguments: Sequence[str], on_line: Callable[[str], None]) -> int:
        """Run it as it is typed; everything it writes goes to `on_line`. Its exit code."""
        try:
            return await self._run(tuple(arguments), "", {}, None, on_line)
        except OSError as error:
            on_line(_not_started(error))
            return _NOT_STARTED

    async def _run(
        self,
        arguments: Sequence[str],
        stdin: str,
        extra: Mapping[str, str],
        answer: bytearray | None,
        on_line: Callable[[str], None],
    ) -> int:
        """`answer` takes what comes on its output; None: that is told line by line as well."""
        process = await asyncio.create_subprocess_exec(
            *command(self._home, arguments),
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if answer is not None else asyncio.subprocess.STDOUT,
            env={**self._environ, **extra},
            start_new_session=True,
            limit=_LINE_BYTES_MAX,
        )
        assert process.stdout is not None
        try:
            if stdin:
                assert process.stdin is not None
                process.stdin.write(stdin.encode() + b"\n")
                process.stdin.close()
            if answer is None:
                await _tell(process.stdout, on_line)
            else:
                assert process.stderr is not None
                await asyncio.gather(
                    _collect(process.stdout, answer), _tell(process.stderr, on_line)
                )
            return await process.wait()
        finally:
            if process.returncode is None:
                await _end(process)


def _not_started(error: OSError) -> str:
    """This host has no memory or process left for it, or `cic` itself is gone."""
    return f"`cic` could not be started: {error.strerror or error}."


async def _tell(stream: asyncio.StreamReader, on_line: Callable[[str], None]) -> None:
    """Lines as they come; a part behind a carriage return replaces nothing here, it is a line."""
    rest = b""
    while piece := await stream.read(64 * 1024):
        *whole, rest = (rest + piece.replace(b"\r", b"\n")).split(b"\n")
        for line in whole:
            if line.strip():
                on_line(line.decode(errors="replace"))
        rest = rest[-_LINE_BYTES_MAX:]
    if rest.strip():
        on_line(rest.decode(errors="replace"))


async def _collect(stream: asyncio.StreamReader, into: bytearray) -> None:
    while piece := await stream.read(64 * 1024):
        if len(into) < _ANSWER_BYTES_MAX:
            into += piece


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask it to end, then make it. Its own session: its children end with it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            await asyncio.wait_for(process.wait(), _END_S)
        except TimeoutError:
            continue
        return


def _outcome(
    arguments: tuple[str, ...], exit_code: int, output: bytes, said: Sequence[str]
) -> Outcome:
    # An answer of several objects is one a line: the last one says how it ended.
    answer = _decoded(output)
    if exit_code == 0:
        return Outcome(arguments, 0, answer, lines=tuple(said))
    try:
        refusal = msgspec.convert(answer, _Refused).error
    except msgspec.ValidationError:
        told = said[-1] if said else f"`cic {shlex.join(arguments)}` ended with code {exit_code}."
        return Outcome(arguments, exit_code, answer, "failed", told, lines=tuple(said))
    return Outcome(
        arguments,
        exit_code,
        answer,
        refusal.code,
        refusal.message,
        refusal.next_step,
        tuple(said),
    )


def _decoded(output: bytes) -> Any:
    for text in (output, output.strip().rpartition(b"\n")[2]):
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return None
