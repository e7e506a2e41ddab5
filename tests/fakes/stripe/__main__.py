"""`python -m tests.fakes.stripe --port N [--state FILE]`: the double as a process of its own.

Prints one line of JSON, {"url", "api_key", "webhook_secret"}, once it listens; ends on SIGTERM or
SIGINT. With `--state` everything it knows is in the file after each change, and read at the start.
"""

import argparse
import asyncio
import json
import signal
from pathlib import Path

from tests.fakes.stripe.double import StripeDouble


async def _serve(port: int, state: Path | None) -> None:
    double = StripeDouble(state=state)
    await double.start(port)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    told = {
        "url": double.base_url,
        "api_key": double.api_key,
        "webhook_secret": double.webhook_secret,
    }
    print(json.dumps(told), flush=True)  # noqa: T201 - how the caller learns the address
    await ended.wait()
    await double.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state", type=Path, default=None)
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.port, arguments.state))


if __name__ == "__main__":
    main()
