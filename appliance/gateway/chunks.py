"""Chunked transfer coding (RFC 9112, section 7.1), read strictly."""

from typing import Final

_SIZE_DIGITS_MAX: Final = 8  # 4 GiB in one chunk is no engine's answer
_SIZE_LINE_MAX: Final = 256  # digits and extensions
_TRAILER_BYTES_MAX: Final = 8 * 1024


class BadChunk(ValueError):
    """The framing is broken; nothing that follows can be trusted."""


def size_of(line: bytes) -> int:
    """The number on a chunk's size line; an extension after `;` is allowed and means nothing."""
    digits = line.partition(b";")[0].rstrip(b" \t")
    # bytes.isalnum keeps out what int() would take: signs, underscores, blanks.
    if not 0 < len(digits) <= _SIZE_DIGITS_MAX or not digits.isalnum():
        raise BadChunk("a chunk size that is no number")
    try:
        return int(digits, 16)
    except ValueError as error:
        raise BadChunk("a chunk size that is no number") from error


class Dechunker:
    """Takes the framing off. `ended` once the last chunk and its trailer are in."""

    __slots__ = ("_in_trailer", "_left", "_line", "broken", "ended", "rest")

    def __init__(self) -> None:
        self._left = 0  # of the chunk at work, with its CRLF
        self._line = b""  # a size line or trailer that has not ended
        self._in_trailer = False
        self.ended = False
        self.broken: BadChunk | None = None
        self.rest = b""  # what came after the end

    @property
    def between(self) -> bool:
        """Whether everything so far was whole chunks."""
        return not (self._left or self._line or self._in_trailer)

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`, up to its end or to where `broken` is from."""
        parts: list[bytes] = []
        try:
            self._feed(data, parts)
        except BadChunk as error:
            self.broken = error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _feed(self, data: bytes, parts: list[bytes]) -> None:
        if self._line:
            data, self._line = self._line + data, b""
        at = 0
        while at < len(data) and not self.ended:
            if self._left:
                taken = data[at : at + self._left]
                at += len(taken)
                parts.append(self._payload(taken))
                continue
            end = data.find(b"\r\n", at, at + _SIZE_LINE_MAX + _TRAILER_BYTES_MAX)
            if end < 0:
                self._line = data[at:]
                if len(self._line) > (_TRAILER_BYTES_MAX if self._in_trailer else _SIZE_LINE_MAX):
                    raise BadChunk("a chunk's size line does not end")
                break
            self._line_ended(data[at:end])
            at = end + 2
        if self.ended:
            self.rest = data[at:]

    def _payload(self, taken: bytes) -> bytes:
        """What of `taken` is payload: a chunk ends in a CRLF that is not."""
        before = self._left
        self._left -= len(taken)
        ending = taken[max(before - 2, 0) :] if self._left < 2 else b""
        if ending and ending != b"\r\n"[2 - min(before, 2) : 2 - self._left]:
            raise BadChunk("a chunk that does not end where its size says")
        return taken[: len(taken) - len(ending)]

    def _line_ended(self, line: bytes) -> None:
        if self._in_trailer:
            self.ended = not line
            return
        size = size_of(line)
        if size:
            self._left = size + 2
        else:
            self._in_trailer = True


def whole_chunks(data: bytes) -> bytes | None:
    """The payload when `data` is nothing but whole chunks, as engines write events; else None.

    The last chunk is left to the Dechunker, and so is everything out of the ordinary.
    """
    parts = []
    at = 0
    while at < len(data):
        line_end = data.find(b"\r\n", at, at + 10)
        digits = data[at:line_end]
        if line_end <= at or not digits.isalnum():
            return None
        try:
            end = line_end + 2 + int(digits, 16)
        except ValueError:
            return None
        if end == line_end + 2 or data[end : end + 2] != b"\r\n":
            return None
        parts.append(data[line_end + 2 : end])
        at = end + 2
    return parts[0] if len(parts) == 1 else b"".join(parts)
