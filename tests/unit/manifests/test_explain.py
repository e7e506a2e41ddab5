"""What is said of a verified document: its figures, what they prove, and what they do not."""

import pytest

from appliance.manifests import explain
from appliance.manifests.explain import Explanation
from appliance.manifests.keys import open_entitlement, open_receipt
from appliance.manifests.proof import make_proof, verify_proof
from appliance.manifests.redaction import open_redacted, redact
from appliance.manifests.verify import Checked, check_bytes
from tests.fakes import papers
from tests.fakes.sites import START_NS, Site, make_record

SITE = Site()
RECORDS = [make_record(1, START_NS), make_record(2, START_NS, tenant_id="ten_other", tenant="b")]
ENVELOPE, LINES, SEALED = SITE.seal(RECORDS)
VENDOR = papers.CONTROL_PLANE.public


def words_of(kind: str) -> Explanation:
    match kind:
        case "manifest":
            checked = check_bytes(ENVELOPE, LINES, SITE.known())
            assert isinstance(checked, Checked)
            return explain.manifest_in_words(checked)
        case "proof":
            raw = make_proof(ENVELOPE, LINES, RECORDS, RECORDS[0].record_id, SITE.salts)
            return explain.proof_in_words(verify_proof(raw, SITE.key.public))
        case "redacted":
            shown = redact(LINES, {"ten_other"})
            window = open_redacted(ENVELOPE, shown, {SITE.key.key_id: SITE.key.public})
            return explain.redacted_in_words(window)
        case "receipt":
            receipt = open_receipt(papers.receipt_bytes(SITE, SEALED), VENDOR)
            return explain.receipt_in_words(receipt)
        case _:
            entitlement = open_entitlement(papers.entitlement_bytes(SITE), VENDOR)
            return explain.entitlement_in_words(entitlement)


KINDS = ("manifest", "proof", "redacted", "receipt", "entitlement")


@pytest.mark.parametrize("kind", KINDS)
def test_each_says_what_is_proven_and_what_is_not_in_sentences(kind: str) -> None:
    words = words_of(kind)
    assert words.proven
    assert words.not_proven
    for sentence in (words.summary, *words.proven, *words.not_proven):
        assert sentence[0].isupper() or sentence.startswith(SITE.appliance_id), sentence
        assert sentence.endswith((".", ")")), sentence
        assert "  " not in sentence


def test_a_proof_names_the_figures_of_its_request() -> None:
    record, words = RECORDS[0], words_of("proof")
    for figure in (record.request_id, record.input_tokens, record.output_tokens, record.model):
        assert str(figure) in words.summary
    assert "manifest 1-1" in words.proven[1]
    assert "1 request " in words.proven[2]
    assert any("'engine'" in sentence for sentence in words.not_proven)
    assert any("receipt" in sentence for sentence in words.not_proven)


def test_a_manifest_names_its_sums() -> None:
    words = words_of("manifest")
    assert words.summary.startswith("Manifest 1-1 of apl_0123456789abcdef01234567: 2 requests")
    assert str(sum(record.output_tokens for record in RECORDS)) in words.summary
    assert any("events 1 to 2" in sentence for sentence in words.proven)
    assert any("clock" in sentence for sentence in words.not_proven)


def test_a_redacted_window_says_how_much_is_hidden() -> None:
    words = words_of("redacted")
    assert "1 line shown with 1 request" in words.summary
    assert "1 hidden" in words.summary


def test_a_receipt_tells_what_was_not_simply_accepted() -> None:
    words = words_of("receipt")
    assert "accepted through manifest 1" in words.summary
    assert "0 of 1 manifest in it without reserve, 1 with" in words.summary
    assert "Manifest 1-1: CLOCK_FUTURE (the clock is ahead)." in words.proven
    assert any("invoiced" in sentence for sentence in words.not_proven)


def test_an_entitlement_names_its_dates() -> None:
    words = words_of("entitlement")
    assert "from 2026-11-01T00:00:00.000Z to 2027-11-01T00:00:00.000Z" in words.summary
    assert SITE.key.key_id[:16] in words.proven[1]
