"""Reading the Prometheus text format, as far as engines write it."""

import contextlib
import re
from collections.abc import Collection

from agent.errors import EngineUnfit


def sums(text: str, names: Collection[str]) -> dict[str, float]:
    """The sum over all labels of each metric that is there. Raises EngineUnfit.

    A metric that is missing is missing here too: an engine that counts nothing yet may leave it
    out, and a newer one may have renamed it.
    """
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, labels, rest = line.partition("{")
        # Labels may hold anything between quotes, braces and spaces too: read on behind the last.
        name, value = (name, rest.rpartition("}")[2]) if labels else line.partition(" ")[::2]
        if name not in names:
            continue
        try:
            # A timestamp may follow the value.
            found[name] = found.get(name, 0.0) + float(value.split()[0])
        except (ValueError, IndexError) as error:
            raise EngineUnfit(f"The engine's metric {name} is {value.strip()!r}.") from error
    return found


def labelled(text: str, name: str, label: str) -> dict[str, float]:
    """The values of one metric by one of its labels. Lines that make no sense are left out."""
    found: dict[str, float] = {}
    pattern = re.compile(
        rf'^{re.escape(name)}{{(?:[^}}]*,)?{re.escape(label)}="([^"]*)"[^}}]*}} (\S+)'
    )
    for line in text.splitlines():
        match = pattern.match(line)
        if match:
            with contextlib.suppress(ValueError):
                found[match[1]] = float(match[2])
    return found
