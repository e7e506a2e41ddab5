"""What is JSON to everyone, and what only to some."""

import json
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.gateway import strict_json
from appliance.gateway.errors import BadRequest

DEPTH = 64

REFUSED = {
    "not json": b"nope",
    "empty": b"",
    "two values": b"{}{}",
    "trailing comma": b'{"a":1,}',
    "comment": b'{"a":1/**/}',
    "byte order mark": b'\xef\xbb\xbf{"a":1}',
    "nan": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "number out of range": b'{"a":1e999}',
    "number of many digits": b'{"a":1' + b"0" * 400 + b"}",
    "invalid utf-8": b'{"a":"\xff"}',
    "encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "raw control character": b'{"a":"\x01"}',
    "key twice": b'{"a":1,"a":2}',
    "key twice, deeper": b'{"x":[{"a":1,"b":2,"a":3}]}',
    "key twice, escaped": rb'{"a":1,"\u0061":2}',
    "key twice, a colon hidden in an escape": rb'{"a":1,"a":"\u003a"}',
    "key twice with a quote": rb'{"a\"":1,"a\"":2}',
    "too deep, lists": b"[" * 65 + b"]" * 65,
    "too deep, objects": b'{"a":' * 65 + b"1" + b"}" * 65,
    "far too deep": b"[" * 100_000 + b"]" * 100_000,
}
ACCEPTED = {
    "nothing special": b'{"a":[1,2.5,-3e10,true,false,null,"x"]}',
    "as deep as allowed": b"[" * 64 + b"]" * 64,
    "brackets in strings": b'{"a":"' + b"[{" * 200 + b'"}',
    "the same key in neighbours": b'[{"a":1},{"a":2}]',
    "the same key inside": b'{"a":{"a":{"a":1}}}',
    "colons and quotes in strings": rb'{"a:":"b:\":c","d\\":"\\"}',
    "keys that differ by an escape": rb'{"a\"":1,"a\\":2,"a":3}',
    "an escaped colon": rb'{"a":"\u003a"}',
    "large integers": b'{"a":18446744073709551615}',
    "white space": b' \n{ "a" :\t1 }\r\n',
    "other scripts": '{"ключ":"😀"}'.encode(),
    "a string as a key's twin": b'{"a":"a","b":"a"}',
}


def _checks(body: bytes) -> list[bytes]:
    """The body, and the same padded beyond the size up to which the quick proof is tried."""
    return [body, body + b" " * strict_json.SMALL_BYTES]


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    for body in _checks(REFUSED[case]):
        with pytest.raises(BadRequest):
            strict_json.check(body, DEPTH)


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case):
    for body in _checks(ACCEPTED[case]):
        strict_json.check(body, DEPTH)


def test_the_duplicate_is_named():
    with pytest.raises(BadRequest, match="'model' twice"):
        strict_json.check(b'{"model":"a","model":"b"}', DEPTH)


MANY = {
    "strings": b'["",' + b'"",' * strict_json.PARTS_MAX + b'""]',
    "strings with quotes": b"[" + rb'""\",' * strict_json.PARTS_MAX + b'""]',
    "keys": b"{" + b'"":1,' * strict_json.PARTS_MAX + b'"a":1}',
    "objects": b"[" + b"{}," * strict_json.PARTS_MAX + b"{}]",
    "lists in lists": b"[" + (b"[" * 60 + b"]" * 60 + b",") * 3_000 + b"1]",
    "numbers": b"[" + b"1," * strict_json.COMMAS_MAX + b"1,1]",
    "numbers with large exponents": b"[" + b"1e100," * 70_000 + b"1]",
}


@pytest.mark.parametrize("case", MANY)
def test_too_many_parts_are_refused_before_they_are_made(case, monkeypatch):
    def decoded(body):
        raise AssertionError("it was decoded")

    monkeypatch.setattr(strict_json, "_ANY", decoded)
    with pytest.raises(BadRequest, match="too many parts"):
        strict_json.check(MANY[case], DEPTH)


def test_a_text_may_hold_any_number_of_commas_and_brackets():
    text = b"a,b[{" * strict_json.COMMAS_MAX
    strict_json.check(b'{"a":"' + text + b'"}', DEPTH)
    strict_json.check(b"[" + b"1," * (strict_json.COMMAS_MAX - 1) + b"1]", DEPTH)


# Each is as large as the gateway takes, and was slow by one way of looking for what is wrong.
SLOW = {
    "keys": b"{" + b",".join(b'"%0100d":1' % n for n in range(130_000)) + b"}",
    "keys with escapes": b"{" + b",".join(rb'"a"%d":1' % n for n in range(130_000)) + b"}",
    "digits in many runs": b"[" + (b"1" * 299 + b",") * 50_000 + b"1]",
    "a number of many digits": b"[0." + b"1" * 15_000_000 + b"]",
    "large exponents": b"[" + b"1." + b"0" * 200 + b"e100," * 60_000 + b"1]",
    "escapes": b'["' + rb"\"" * 4_000_000 + b'"]',
    "blanks": b"[1" + b" " * 15_000_000 + b"]",
}


@pytest.mark.parametrize("case", SLOW)
def test_no_body_costs_much_more_than_its_bytes(case):
    started_s = process_time()
    with suppress(BadRequest):
        strict_json.check(SLOW[case], DEPTH)
    # Some 0.2 s at the most; what this is to find took ten seconds.
    assert process_time() - started_s < 2.0


KEYS = st.sampled_from(["a", "b", ":", '"', "\\", 'a"', "a:b", "é", "{", "[1]"])
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | KEYS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(KEYS, inner), max_size=4)
)


def _render(value, ascii_only):
    """Pairs become an object as they stand, twins and all."""
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        members = ",".join(
            f"{json.dumps(k, ensure_ascii=ascii_only)}:{_render(v, ascii_only)}" for k, v in value
        )
        return "{" + members + "}"
    if isinstance(value, list):
        return "[" + ",".join(_render(item, ascii_only) for item in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def _has_twins(value):
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        keys = [key for key, _ in value]
        return len(set(keys)) < len(keys) or any(_has_twins(inner) for _, inner in value)
    return isinstance(value, list) and any(_has_twins(item) for item in value)


@given(VALUES, st.booleans(), st.booleans())
def test_twins_are_found_wherever_they_are_and_nothing_else_is(value, ascii_only, large):
    body = _render(value, ascii_only).encode()
    if large:
        body += b" " * strict_json.SMALL_BYTES
    if _has_twins(value):
        with pytest.raises(BadRequest):
            strict_json.check(body, DEPTH)
    else:
        strict_json.check(body, DEPTH)
