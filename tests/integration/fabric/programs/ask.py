"""Runs on the client's host: one HTTP request, read from standard input, answered on output.

In: {"host", "port", "method", "path", "headers", "body", "timeout_s"}. Out: {"status", "headers",
"body", "seconds"}, or {"error", "seconds"}. Standard library alone.
"""

import base64
import http.client
import json
import sys
import time

asked = json.load(sys.stdin)
began = time.monotonic()
try:
    connection = http.client.HTTPConnection(
        asked["host"], asked["port"], timeout=asked["timeout_s"]
    )
    body = None if asked["body"] is None else base64.b64decode(asked["body"])
    connection.request(asked["method"], asked["path"], body, asked["headers"])
    answer = connection.getresponse()
    found = {
        "status": answer.status,
        "headers": {name.lower(): value for name, value in answer.getheaders()},
        "body": base64.b64encode(answer.read()).decode(),
    }
except (OSError, http.client.HTTPException) as error:
    found = {"error": repr(error)}
json.dump({**found, "seconds": time.monotonic() - began}, sys.stdout)
