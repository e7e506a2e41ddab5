"""`python -m tests.fakes.console_without_deeds --home DIR console`: a console that does nothing.

It is the real one, but for what it would start: the commands it runs are written down, one a line,
in the file that DEEDS names, and end well.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from appliance.cli import main
from console.children import Children


async def _run(
    self: Children,
    arguments: Sequence[str],
    stdin: str,
    extra: Mapping[str, str],
    answer: bytearray | None,
    on_line: Callable[[str], None],
) -> int:
    _write_down(arguments)
    on_line("Done: ✓ \x1b]0;owned\x07…")  # as programs may write
    if answer is not None:
        answer += b'{"name": "it", "id": "x_1"}'
    return 0


def _write_down(arguments: Sequence[str]) -> None:
    with Path(os.environ["DEEDS"]).open("a") as deeds:
        deeds.write(json.dumps(list(arguments)) + "\n")


if __name__ == "__main__":
    Children._run = _run  # type: ignore[method-assign]  # the lowest edge, and nothing above it
    sys.exit(main())
