"""Unix socket addresses that fit, however deep the home lies."""

import os
from pathlib import Path

# sun_path holds 108 bytes with its closing NUL (unix(7)).
PATH_BYTES_MAX = 107


def socket_address(path: Path) -> str:
    """An address for `path` that bind and connect accept.

    A path too long for sun_path is named through a descriptor of its folder. The descriptor stays
    open for as long as the process lives, which is as long as the address is of use.
    Raises FileNotFoundError when the folder is not there.
    """
    text = str(path)
    if len(os.fsencode(text)) <= PATH_BYTES_MAX:
        return text
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{path.name}"
