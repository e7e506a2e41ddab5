"""The server as a program: until Ctrl-C, SIGTERM or a hang-up."""

import asyncio
import signal
import sys
from collections.abc import Sequence

from appliance.wire.command import CommandError, ExitCode
from console.web.server import WebConsole


def serve(command: Sequence[str], site: str, port: int) -> None:
    """Raises CommandError where the port cannot be had."""
    try:
        asyncio.run(_until_told(command, site, port))
    except OSError as error:
        raise CommandError(
            f"Cannot listen on 127.0.0.1:{port}: {error.strerror or error}.",
            next_step="Name another one with --port N; 0 takes any.",
            exit_code=ExitCode.CONFIGURATION,
        ) from error


async def _until_told(command: Sequence[str], site: str, port: int) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, over.set)
    console = WebConsole(command, site, _say)
    await console.start(port)
    sys.stderr.write(
        "The console is served to browsers on this machine alone. Each address lets one browser"
        " in, once. From another machine: ssh -L. Ctrl-C ends it.\n"
    )
    try:
        await over.wait()
    finally:
        await console.close()


def _say(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
