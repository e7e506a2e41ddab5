"""A client that sends exactly the bytes it is told, and reads what comes back."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, its body whole."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Closed(Exception):
    """The connection ended before a whole answer had come."""


class RawClient:
    """One connection. `seconds` bounds every read."""

    def __init__(self, address: tuple[str, int], seconds: float = 10.0) -> None:
        self.socket = socket.create_connection(address, timeout=seconds)
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_slowly(self, data: bytes, interval_s: float) -> int:
        """A byte at a time until all is sent or the server has closed; how many went."""
        for index, byte in enumerate(data):
            self.socket.settimeout(interval_s)
            with contextlib.suppress(TimeoutError):
                if not self.socket.recv(1, socket.MSG_PEEK):
                    return index
                return index  # an answer came early
            try:
                self.socket.sendall(bytes([byte]))
            except OSError:
                return index
        return len(data)

    def answer(self, *, head_only: bool = False) -> Answer:
        """The next final answer; informational ones are skipped."""
        while True:
            head = self._until(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            status = int(first.split(" ")[1])
            if status >= 200:
                break
        headers = tuple((n, v.strip()) for n, _, v in (line.partition(":") for line in lines))
        answer = Answer(status, headers, b"")
        if head_only:
            return answer
        if answer.header("transfer-encoding") == "chunked":
            body = b"".join(self._chunks())
        elif (length := answer.header("content-length")) is not None:
            body = self._take(int(length))
        else:
            body = self.rest()
        return Answer(status, headers, body)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._until(b"\r\n").split(b";")[0], 16):
            yield self._take(size)
            self._take(2)
        self._until(b"\r\n")

    def body_until_last_chunk(self) -> bytes:
        """The payload of a chunked answer that began before the reader came: heads left out."""
        found = b""
        while not found.endswith(b"\r\n0\r\n\r\n"):
            self._more()
            found, self._buffer = found + self._buffer, b""
        return re.sub(rb"\r\n[0-9a-f]+\r\n", b"", found)

    def rest(self) -> bytes:
        """Everything until the server closes. TimeoutError when it does not."""
        parts = [self._buffer]
        self._buffer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := self.socket.recv(READ_BYTES):
                parts.append(part)
        return b"".join(parts)

    def closed_within(self, seconds: float) -> bool:
        """Whether the server closes in time; what it says before is thrown away."""
        until = time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not self.socket.recv(READ_BYTES):
                    return True
        except ConnectionResetError:
            return True
        except TimeoutError:
            pass
        return False

    def _until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            self._more()
        found = self._buffer[:end]
        self._buffer = self._buffer[end + len(mark) :]
        return found

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _more(self) -> None:
        try:
            part = self.socket.recv(READ_BYTES)
        except ConnectionResetError as error:
            raise Closed from error
        if not part:
            raise Closed
        self._buffer += part

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def request(
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    version: str = "HTTP/1.1",
) -> bytes:
    """A well-formed request; what is to be wrong is given by the caller."""
    lines = [f"{method} {target} {version}"]
    given = dict(headers or {})
    given.setdefault("Host", "appliance.test")
    if body is not None:
        given.setdefault("Content-Type", "application/json")
        if "Transfer-Encoding" not in given:
            given.setdefault("Content-Length", str(len(body)))
    lines += [f"{name}: {value}" for name, value in given.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
