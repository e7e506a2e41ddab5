"""A window for one tenant: its lines are proven, the others' say nothing."""

import pytest

from appliance.manifests.canonical import encode
from appliance.manifests.errors import BadDocument, SignatureInvalid, UnknownKey
from appliance.manifests.lines import split_lines
from appliance.manifests.merkle import leaf_hash
from appliance.manifests.redaction import open_redacted, redact
from tests.fakes.sites import START_NS, Site, make_record, signing_key

SITE = Site()
RECORDS = [
    make_record(
        seq, START_NS, tenant_id=f"ten_{seq % 3}", tenant=f"name{seq % 3}", key_id=f"key_{seq % 6}"
    )
    for seq in range(1, 13)
]
ENVELOPE, LINES, SEALED = SITE.seal(RECORDS)
KEYS = {SITE.key.key_id: SITE.key.public}


def test_a_tenant_s_own_lines_stay_and_are_proven() -> None:
    shown = redact(LINES, {"ten_1"})
    window = open_redacted(ENVELOPE, shown, KEYS)
    assert {line.tenant_id for line in window.lines} == {"ten_1"}
    assert (len(window.lines), window.hidden) == (2, 4)
    own = [record for record in RECORDS if record.tenant_id == "ten_1"]
    assert window.sums.requests == len(own)
    assert window.sums.output_tokens == sum(record.output_tokens for record in own)
    assert window.key_id == SITE.key.key_id


def test_nothing_of_another_tenant_is_in_it() -> None:
    shown = redact(LINES, {"ten_1"})
    for word in (b"ten_0", b"ten_2", b"name0", b"name2", b"key_0", b"key_2", b"key_3"):
        assert word not in shown


def test_all_may_be_shown_or_hidden_and_what_is_hidden_stays_so() -> None:
    assert redact(LINES, {"ten_0", "ten_1", "ten_2"}) == LINES
    nothing = redact(LINES, ())
    assert open_redacted(ENVELOPE, nothing, KEYS).hidden == 6
    assert redact(redact(LINES, {"ten_1"}), {"ten_0"}) == nothing
    hidden = [leaf_hash(raw).hex() for raw in split_lines(LINES)]
    assert nothing == b"".join(encode({"redacted": leaf}) + b"\n" for leaf in hidden)


SHOWN = redact(LINES, {"ten_1"})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        SHOWN[:-1],
        SHOWN + SHOWN.splitlines(keepends=True)[0],
        b"".join(SHOWN.splitlines(keepends=True)[1:]),
        b"".join(SHOWN.splitlines(keepends=True)[::-1]),
        SHOWN.replace(b'"region":"EU"', b'"region":"IN"'),
        SHOWN.replace(b'{"redacted":"', b'{"redacted":"0'),
        SHOWN.replace(b'"}\n', b'","x_more":1}\n'),
        SHOWN.replace(b'{"redacted":"', b'{"redacted":null,"redacted":"'),
        SHOWN.replace(b'{"redacted":', b'{"redacted": '),
    ],
)
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(BadDocument):
        open_redacted(ENVELOPE, raw, KEYS)


def test_it_is_the_site_that_signed_it() -> None:
    stranger = signing_key(2)
    with pytest.raises(UnknownKey):
        open_redacted(ENVELOPE, SHOWN, {stranger.key_id: stranger.public})
    with pytest.raises(SignatureInvalid):
        open_redacted(ENVELOPE, SHOWN, {SITE.key.key_id: stranger.public})


def test_what_are_no_lines_cannot_be_redacted() -> None:
    with pytest.raises(BadDocument):
        redact(b"{}\n", ())
    with pytest.raises(ValueError, match="no end"):
        redact(LINES[:-1], ())
