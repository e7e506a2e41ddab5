"""JSON that means the same to everyone who reads it.

Parsers disagree about duplicate keys, numbers beyond a double, deep nesting and broken UTF-8; what
one component checks and another executes must not differ. So a body is refused when it has any of
these, before anything is decided from it. The grammar itself is checked by msgspec, which follows
RFC 8259 (no NaN, no comments, no trailing commas).
"""

import re
from codecs import getincrementaldecoder
from math import isinf
from typing import Any, Final

import msgspec

from appliance.gateway.errors import BadRequest

_ANY: Final = msgspec.json.Decoder()
_RAW: Final = msgspec.json.Decoder(msgspec.Raw)

# What one body may be made of: each string, list and object costs some work and memory to check and
# to decode, whatever its size, and so does each comma. The longest conversation that is accepted
# has a third of the first; the second is more than any context has tokens.
PARTS_MAX: Final = 131_072  # strings, lists and objects
COMMAS_MAX: Final = 524_288  # outside of strings
SMALL_BYTES: Final = 64 * 1024  # below: decoded as a whole and walked, which is quicker

_UTF8_WINDOW_BYTES: Final = 1024 * 1024
_MARK_BACKSLASH: Final = b"\x01"  # control characters can not stand in a JSON string
_MARK_QUOTE: Final = b"\x02"
_STRING: Final = b"\x03"  # nor outside of one
_KEY: Final = b"\x04"
_OBJECT: Final = ord("{")
_ARRAY: Final = ord("[")
_A_STRING: Final = ord(_STRING)
_A_KEY: Final = ord(_KEY)
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b"{}[]:" + _STRING))
# Numbers with all digits and signs alike: only one with an exponent of three digits, or with
# hundreds of digits, can be beyond a double (1.8e308).
_ALIKE: Final = bytes.maketrans(b"123456789.E", b"0000000000e")
_SIGNS: Final = b"+-"
_LARGE_EXPONENT: Final = b"0e000"
_MANY_DIGITS: Final = b"0" * 300
_LARGE_NUMBER: Final = re.compile(
    rb"(?<![0-9.])[0-9][0-9.]*+(?:[eE][-+]?[0-9]{3,}+|(?<=[0-9.]{300})(?:[eE][-+]?[0-9]++)?)"
)
_LARGE_NUMBERS_MAX: Final = 65_536
_DOUBLE_BITS_MAX: Final = 1023


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
    """The full check, in time and memory that PARTS_MAX and COMMAS_MAX bound."""
    # With escaped backslashes and quotes out of the way, every quote begins or ends a string.
    text = body.replace(b"\\\\", _MARK_BACKSLASH).replace(b'\\"', _MARK_QUOTE)
    if text.count(b'"') > 2 * PARTS_MAX:
        raise _too_many()
    pieces = text.split(b'"')
    outside = _STRING.join(pieces[::2])
    if (len(pieces) >> 1) + outside.count(b"[") + outside.count(b"{") > PARTS_MAX:
        raise _too_many()
    if outside.count(b",") > COMMAS_MAX:
        raise _too_many()
    _check_utf8(body)
    try:
        _RAW.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is not valid JSON: {_plain(error)}.") from error
    except RecursionError as error:
        raise _too_deep(depth_max) from error
    # From here on the grammar is known to be right.
    _check_numbers(outside)
    structure = outside.translate(None, _NOT_STRUCTURE).replace(_STRING + b":", _KEY)
    _check_keys(structure, pieces, depth_max)


def _check_keys(structure: bytes, pieces: list[bytes], depth_max: int) -> None:
    """No key twice in an object, and nothing too deep.

    `structure` is brackets, and a mark for each key and each other string; every second one of
    `pieces` is the text of a string, in the same order.
    """
    stack: list[set[bytes] | None] = []
    at = 1
    for kind in structure:
        if kind == _A_STRING:
            at += 2
        elif kind == _A_KEY:
            known = stack[-1]
            assert known is not None  # a colon stands only in an object
            key = _normal(pieces[at])
            if key in known:
                name = key.decode("utf-8", "replace")[:80]
                raise BadRequest(f"The body has the key '{name}' twice in one object.")
            known.add(key)
            at += 2
        elif kind in (_OBJECT, _ARRAY):
            stack.append(set() if kind == _OBJECT else None)
            if len(stack) > depth_max:
                raise _too_deep(depth_max)
        else:
            stack.pop()


def _check_utf8(body: bytes) -> None:
    """In windows: decoded as a whole, one emoji makes four bytes of every character."""
    if body.isascii():
        return
    decode = getincrementaldecoder("utf-8")().decode
    try:
        for at in range(0, len(body), _UTF8_WINDOW_BYTES):
            decode(body[at : at + _UTF8_WINDOW_BYTES])
        decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise BadRequest("The body is not valid UTF-8.") from error


def _check_numbers(outside: bytes) -> None:
    """`outside` is all that stands outside of strings."""
    alike = outside.translate(_ALIKE, _SIGNS)
    suspects = alike.count(_LARGE_EXPONENT) + alike.count(_MANY_DIGITS)
    if not suspects:
        return
    if suspects > _LARGE_NUMBERS_MAX:
        raise _too_many()
    for found in _LARGE_NUMBER.finditer(outside):
        if isinf(float(found.group())):
            raise BadRequest("The body has a number that is out of range.")


def _normal(key: bytes) -> bytes:
    """A key as it is meant: two spellings of one name are one key."""
    if b"\\" not in key and _MARK_BACKSLASH not in key and _MARK_QUOTE not in key:
        return key
    spelled = key.replace(_MARK_QUOTE, b'\\"').replace(_MARK_BACKSLASH, b"\\\\")
    return msgspec.json.decode(b'"%b"' % spelled, type=str).encode("utf-8", "surrogatepass")


def _too_many() -> BadRequest:
    return BadRequest("The body is made of too many parts.")


def _too_deep(depth_max: int) -> BadRequest:
    return BadRequest(f"The body is nested more than {depth_max} levels deep.")


def _plain(error: Exception) -> str:
    """msgspec's reason without its trailing path."""
    return str(error).removeprefix("JSON is malformed: ").rstrip(".")
