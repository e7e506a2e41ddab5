"""Runs the installer and kills it before its Nth change of a root, as a power cut would.

usage: killed_installer.py N ROOT COUNT_FILE WORDS…   (N 0: it is not killed, and counts)
Python's own audit events tell of each change before it happens; the installer has no part in it.
"""

import os
import signal
import sys
from pathlib import Path

CHANGES = {
    "os.rename", "os.mkdir", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "os.chown",
    "subprocess.Popen",
}  # fmt: skip


def main() -> int:
    number, root, count_file = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    count = 0

    def changed(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            is_change = bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))
            if not is_change or not str(path).startswith(root):
                return
        elif event not in CHANGES or not (
            event == "subprocess.Popen" or str(arguments[0]).startswith(root)
        ):
            return
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(changed)
    from installer.main import main as installer  # noqa: PLC0415 (after the hook)

    code = installer(sys.argv[4:])
    count_file.write_text(str(count))
    return code


if __name__ == "__main__":
    sys.exit(main())
