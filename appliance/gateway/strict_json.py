"""JSON that means the same to everyone who reads it.

Parsers disagree about duplicate keys, numbers beyond a double, deep nesting and broken UTF-8; what
one component checks and another executes must not differ. So a body is refused when it has any of
these, before anything is decided from it. The grammar itself is checked by msgspec, which follows
RFC 8259 (no NaN, no comments, no trailing commas).
"""

import re
from math import isinf
from typing import Any, Final

import msgspec

from appliance.gateway.errors import BadRequest

_ANY: Final = msgspec.json.Decoder()
_RAW: Final = msgspec.json.Decoder(msgspec.Raw)

# Keys of one body. A set of them is what the check holds in memory, so it needs a bound.
KEYS_MAX: Final = 262_144
SMALL_BYTES: Final = 64 * 1024  # below: decoded as a whole and walked, which is quicker

_WINDOW_BYTES: Final = 64 * 1024
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"{}[]"))
_OBJECT: Final = ord("{")
_ARRAY: Final = ord("[")
_BLANKS: Final = b" \t\r\n"
# Only a number with an exponent or with hundreds of digits can be beyond a double (1.8e308).
_LARGE_NUMBER: Final = re.compile(rb"-?[0-9][0-9.]*[eE][-+]?[0-9]+|[0-9.]{300,}")
_DOUBLE_BITS_MAX: Final = 1023
_MARK_BACKSLASH: Final = b"\x01"  # control characters can not stand in a JSON string
_MARK_QUOTE: Final = b"\x02"


def check(body: bytes, depth_max: int) -> None:
    """Raise BadRequest unless `body` is one strict JSON value nested at most `depth_max` deep."""
    if len(body) > SMALL_BYTES or not _plainly_strict(body, depth_max):
        _scan(body, depth_max)


def _plainly_strict(body: bytes, depth_max: int) -> bool:
    """A quick proof that there is nothing to object to; False: not proven, scan it.

    Colons stand behind keys and inside strings, nowhere else. Decoding drops the first of two equal
    keys with its value; so if as many colons remain as were sent, no key was there twice. That
    holds as long as no colon was sent as an escape, which would be there only after decoding.
    """
    if b"\\u003" in body or body.count(b"{") + body.count(b"[") > depth_max:
        return False
    try:
        value: Any = _ANY.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    colons = 0
    stack: list[Any] = [value]
    while stack:
        parent = stack.pop()
        if type(parent) is dict:
            colons += len(parent)
            for key in parent:
                if ":" in key:
                    colons += key.count(":")
            parent = parent.values()
        elif type(parent) is not list:
            parent = (parent,)
        for child in parent:
            kind = type(child)
            if kind is str:
                if ":" in child:
                    colons += child.count(":")
            elif kind is dict or kind is list:
                stack.append(child)
            elif kind is int and child.bit_length() > _DOUBLE_BITS_MAX:
                return False
    return colons == body.count(b":")


def _scan(body: bytes, depth_max: int) -> None:
    """The full check, in memory that does not grow with the number of values."""
    _check_utf8(body)
    try:
        _RAW.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is not valid JSON: {_plain(error)}.") from error
    except RecursionError as error:
        raise _too_deep(depth_max) from error
    # From here on the grammar is known to be right. With escaped backslashes and quotes out of the
    # way, every quote begins or ends a string.
    text = body.replace(b"\\\\", _MARK_BACKSLASH).replace(b'\\"', _MARK_QUOTE)
    stack: list[set[bytes] | None] = []
    keys = 0
    at = 0
    while True:
        opening = text.find(b'"', at)
        _check_numbers(text, at, len(text) if opening < 0 else opening)
        _follow_brackets(text, at, len(text) if opening < 0 else opening, stack, depth_max)
        if opening < 0:
            return
        closing = text.find(b'"', opening + 1)
        at = closing + 1
        while text[at : at + 1] in _BLANKS and at < len(text):
            at += 1
        if text[at : at + 1] != b":":
            continue
        known = stack[-1]
        assert known is not None  # a colon stands only in an object
        key = _normal(text[opening + 1 : closing])
        keys += 1
        if key in known:
            name = key.decode("utf-8", "replace")[:80]
            raise BadRequest(f"The body has the key '{name}' twice in one object.")
        if keys > KEYS_MAX:
            raise BadRequest(f"The body has more than {KEYS_MAX} keys.")
        known.add(key)


def _check_utf8(body: bytes) -> None:
    if body.isascii():
        return
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not valid UTF-8 at byte {error.start}.") from error


def _check_numbers(text: bytes, start: int, end: int) -> None:
    for found in _LARGE_NUMBER.finditer(text, start, end):
        if isinf(float(found.group())):
            raise BadRequest("The body has a number that is out of range.")


def _follow_brackets(
    text: bytes, start: int, end: int, stack: list[set[bytes] | None], depth_max: int
) -> None:
    for window in range(start, end, _WINDOW_BYTES):
        brackets = text[window : min(window + _WINDOW_BYTES, end)].translate(None, _NOT_BRACKETS)
        for bracket in brackets:
            if bracket == _OBJECT:
                stack.append(set())
            elif bracket == _ARRAY:
                stack.append(None)
            else:
                stack.pop()
                continue
            if len(stack) > depth_max:
                raise _too_deep(depth_max)


def _normal(key: bytes) -> bytes:
    """A key as it is meant: two spellings of one name are one key."""
    if b"\\" not in key and _MARK_BACKSLASH not in key and _MARK_QUOTE not in key:
        return key
    spelled = key.replace(_MARK_QUOTE, b'\\"').replace(_MARK_BACKSLASH, b"\\\\")
    return msgspec.json.decode(b'"%b"' % spelled, type=str).encode("utf-8", "surrogatepass")


def _too_deep(depth_max: int) -> BadRequest:
    return BadRequest(f"The body is nested more than {depth_max} levels deep.")


def _plain(error: Exception) -> str:
    """msgspec's reason without its trailing path."""
    return str(error).removeprefix("JSON is malformed: ").rstrip(".")
