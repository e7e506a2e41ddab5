"""What came back from `programs/ask.py`."""

import base64
import json
import subprocess


def answer_of(process: "subprocess.Popen[bytes]") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; no answer at all is status 0, with what happened as the body."""
    assert process.stdout is not None
    found = json.loads(process.stdout.read())
    process.wait(10)
    if "error" in found:
        return 0, {}, found["error"].encode()
    return found["status"], found["headers"], base64.b64decode(found["body"])
