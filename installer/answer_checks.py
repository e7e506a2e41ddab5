"""Checks of single answers: each returns the value as it is kept, or raises ValueError."""

from __future__ import annotations

import re
from collections.abc import Callable

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,126}")
_GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]*")
_NAME_CHARS_MAX = 64


def choice(*allowed: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if value not in allowed:
            raise ValueError(f"it is one of {', '.join(allowed)}")
        return str(value)

    return check


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it is true or false, without quotation marks")  # noqa: TRY004 (one kind)
    return value


def whole_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1_000_000:
        raise ValueError("it is a whole number, not negative")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("it is a text in quotation marks, on one line")
    return value


def path(value: object) -> str:
    return _text(value)


def slug(value: object) -> str:
    text = _text(value)
    if text and not _SLUG.fullmatch(text):
        raise ValueError("use up to 63 letters, digits, '.', '_' or '-', a letter or digit first")
    return text


def model_name(value: object) -> str:
    text = _text(value)
    if text and not _MODEL.fullmatch(text):
        raise ValueError("use letters, digits, '.', '_', '-', ':' or '/', a letter or digit first")
    return text


def name_given(value: object) -> str:
    text = slug(value)
    if not text:
        raise ValueError("it cannot be empty")
    return text


def site_name(value: object) -> str:
    text = _text(value)
    if text.strip() != text or not 0 < len(text) <= _NAME_CHARS_MAX:
        raise ValueError(f"use 1 to {_NAME_CHARS_MAX} printable characters, no space at the ends")
    return text


def address(value: object) -> str:
    text = _text(value)
    host, _, port = text.rpartition(":")
    digits = port.isascii() and port.isdecimal()
    if not host or not digits or int(port) > 65_535 or (":" in host and host[0] != "["):
        raise ValueError("it is HOST:PORT, as 0.0.0.0:8080, 127.0.0.1:8080 or [::1]:8080")
    return text


def names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise ValueError('it is a list of texts, as ["a", "b"]')
    return tuple(_text(one) for one in value)


def group_names(value: object) -> tuple[str, ...]:
    found = names(value)
    for one in found:
        if not _GROUP.fullmatch(one):
            raise ValueError(f"{one!r} cannot be the name of a Unix group")
    return found
