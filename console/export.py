"""What leaves the console: the selected rows as text, to the clipboard or into a file."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any


def as_text(subject: Any) -> str:
    """JSON, but a text as it is."""
    return subject if isinstance(subject, str) else json.dumps(subject, indent=2, default=str)


def write_out(name: str, subject: Any, now: datetime) -> Path:
    """Into a new file of the folder the console was started in, for its owner alone.

    Raises OSError, also where the file is there already.
    """
    path = Path.cwd() / f"crosslogic-{name}-{now:%Y%m%dT%H%M%S}.json"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(as_text(subject) + "\n")
    return path
