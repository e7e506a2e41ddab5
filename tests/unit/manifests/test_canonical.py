"""One way to write a document, and everything else refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.manifests.canonical import INTEGER_MAX, decode, encode, strict_tree
from appliance.manifests.documents import Line, Plans, TenantPlan, Totals
from appliance.manifests.errors import BadDocument

PLANS = Plans(
    appliance_id="apl_1",
    version=3,
    tenants=(TenantPlan(tenant_id="ten_1", plan="größer", since="2026-11-22T19:00:00.000Z"),),
    at="2026-11-22T19:00:00.000Z",
)
RAW = encode(PLANS)


def test_the_bytes_are_compact_and_in_the_order_of_the_fields() -> None:
    assert (
        '{"appliance_id":"apl_1","version":3,"tenants":[{"tenant_id":"ten_1","plan":"größer",'
        '"since":"2026-11-22T19:00:00.000Z"}],"at":"2026-11-22T19:00:00.000Z"}'
    ).encode() == RAW
    assert decode(RAW, Plans) == PLANS


@pytest.mark.parametrize(
    "changed",
    [
        RAW.replace(b'"version":3', b'"version":3,"version":3'),
        RAW.replace(b'"version":3', b'"version":3,"version":4'),
        RAW.replace(b'"plan"', b'"plan":"x","plan"'),
        RAW.replace(b'"version":3', b'"version":3.0'),
        RAW.replace(b'"version":3', b'"version":3e0'),
        RAW.replace(b'"version":3', b'"version":NaN'),
        RAW.replace(b'"version":3', b'"version":Infinity'),
        RAW.replace(b'"version":3', b'"version":-3'),
        RAW.replace(b'"version":3', b'"version":"3"'),
        RAW.replace(b'"version":3', b'"version":true'),
        RAW.replace(b'"version":3', b'"version":9223372036854775808'),
        RAW.replace(b'"version":3', b'"version":123456789012345678901234567890'),
        RAW.replace(b'"version":3', b'"version":3,"more":1'),
        RAW.replace(b'"version":3', b'"x_more":9223372036854775808,"version":3'),
        RAW.replace(b'"version":3', b'"x_more":1.5,"version":3'),
        RAW.replace(b'"version":3', b'"x_more":{"a":1,"a":2},"version":3'),
        RAW.replace(b'"version":3', b'"x_more":' + b"[" * 40 + b"]" * 40 + b',"version":3'),
        RAW.replace(b'"version":3', b'"x_more":' + b"[" * 9_999 + b"]" * 9_999 + b',"version":3'),
        RAW.replace(b'"version":3,', b""),
        RAW.replace(b'"version":3', b'"version": 3'),
        RAW.replace(b"ten_1", b"ten_\\u0031"),
        RAW.replace(b"ten_1", b"ten\\t1"),
        RAW.replace(b"ten_1", b"ten\\u00001"),
        RAW.replace(b"ten_1", b"ten\x7f1"),
        RAW.replace(b"ten_1", b"ten\n1"),
        RAW.replace(b"ten_1", b"ten\\ud800"),
        RAW.replace(b"ten_1", b"ten\xff"),
        RAW.replace(b"ten_1", b"ten\xc0\x80"),
        RAW + b"\n",
        b" " + RAW,
        b"\xef\xbb\xbf" + RAW,
        RAW + RAW,
        RAW[:-1],
        b"",
        b"null",
        b"[]",
        b"\x00",
        RAW.decode().encode("utf-16"),
        encode({"version": 3, **strict_tree(RAW)}),
        encode(dict(reversed(strict_tree(RAW).items()))),
    ],
    ids=lambda raw: str(raw[:60]),
)
def test_any_other_way_to_write_it_is_refused(changed: bytes) -> None:
    assert changed != RAW
    with pytest.raises(BadDocument):
        decode(changed, Plans)


def test_fields_that_begin_with_x_may_stand_anywhere_and_are_ignored() -> None:
    longer = RAW.replace(b'"plan"', b'"x_of":[1,{"any":"thing"}],"plan"')
    longer = longer.replace(b'"at"', b'"x_more":null,"at"')
    assert decode(longer, Plans) == PLANS


def test_quotes_backslashes_and_the_newlines_of_a_pem_are_taken() -> None:
    plans = Plans(appliance_id='a"b\\c\n', version=0, tenants=(), at="")
    assert decode(encode(plans), Plans) == plans


@pytest.mark.parametrize("number", [0, 1, INTEGER_MAX])
def test_whole_numbers_reach_up_to_63_bits(number: int) -> None:
    plans = Plans(appliance_id="", version=number, tenants=(), at="")
    assert decode(encode(plans), Plans).version == number


@pytest.mark.parametrize(
    "quantity", ["", "-1", "+1", "01", "00", "1.0", "1e3", " 1", "1 ", "1\n", "٣", "1" * 20]
)
def test_a_quantity_is_a_plain_decimal_number(quantity: str) -> None:
    totals = Totals(requests="1", input_tokens=quantity, cached_tokens="0", output_tokens="0")
    with pytest.raises(BadDocument):
        decode(encode(totals), Totals)


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n"])
def test_a_hash_is_64_lower_case_hex_digits(digest: str) -> None:
    line = Line(
        **dict.fromkeys(("tenant_id", "tenant", "environment_id", "environment", "key_id"), ""),
        **dict.fromkeys(("model", "model_digest", "region", "price_class", "hour"), ""),
        **dict.fromkeys(("requests", "input_tokens", "cached_tokens", "output_tokens"), "0"),
        records_root=digest,
        salt="0" * 32,
    )
    with pytest.raises(BadDocument):
        decode(encode(line), Line)


@given(st.recursive(st.integers() | st.text() | st.booleans() | st.none(), st.lists))
def test_strict_trees_are_read_as_they_are_written_or_not_at_all(value: object) -> None:
    try:
        raw = encode(value)
        read = strict_tree(raw)
    except (BadDocument, OverflowError, UnicodeEncodeError):
        return
    assert read == value


@given(st.binary(max_size=60))
def test_noise_is_refused_and_raises_nothing_else(noise: bytes) -> None:
    with pytest.raises(BadDocument):
        decode(noise, Plans)
    with pytest.raises(BadDocument):
        decode(RAW[:20] + noise + RAW[20:] + b" ", Plans)
