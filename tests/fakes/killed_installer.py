"""Runs the installer and kills it before its Nth change of a root, as a power cut would.

usage: killed_installer.py N ROOT COUNT_FILE WORDS…   (N 0: it is not killed, and counts;
STEP+N: the Nth change since that step of the journal began)
Python's own audit events tell of each change before it happens; the installer has no part in it.
"""

import json
import os
import signal
import sys
from pathlib import Path

CHANGES = {
    "os.rename", "os.mkdir", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "os.chown",
    "subprocess.Popen",
}  # fmt: skip


def main() -> int:
    step, _, text = sys.argv[1].rpartition("+")
    number, root, count_file = int(text), sys.argv[2], Path(sys.argv[3])
    journal = Path(root) / "var/lib/crosslogic-installer/journal.jsonl"
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
        if step and not _is_in(step, journal):
            return
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(changed)
    from installer.main import main as installer  # noqa: PLC0415 (after the hook)

    code = installer(sys.argv[4:])
    count_file.write_text(str(count))
    return code


def _is_in(step: str, journal: Path) -> bool:
    """Whether the last step that began is this one, and goes on."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    last = json.loads(lines[-1]) if lines else {}
    return last.get("step") == step and last["event"] == "step"


if __name__ == "__main__":
    sys.exit(main())
