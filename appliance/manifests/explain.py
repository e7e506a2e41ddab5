"""What a verified document proves, and what it does not, in sentences for a person."""

from dataclasses import dataclass

from appliance.domain.clock import iso
from appliance.manifests.documents import Entitlement, Header, Receipt
from appliance.manifests.lines import Sums
from appliance.manifests.proof import ProofVerdict
from appliance.manifests.redaction import RedactedWindow
from appliance.manifests.verify import Checked


@dataclass(frozen=True, slots=True)
class Explanation:
    """Sentences: one line for the summary, then what is proven and what is not."""

    summary: str
    proven: tuple[str, ...]
    not_proven: tuple[str, ...]


def manifest_in_words(checked: Checked) -> Explanation:
    """Of a manifest whose bytes were verified with the site's key."""
    header = checked.header
    return Explanation(
        summary=f"Manifest {_place(header)} of {header.appliance_id}: {_tokens(checked.totals)}"
        f" on {_count(header.line_count, 'line')}.",
        proven=(
            _signed_by(header),
            f"The {_count(header.line_count, 'line')} are exactly those that were signed, and add"
            " up to the totals in the header.",
            f"It reports the events {header.event_seq_lo} to {header.event_seq_hi}, as many"
            " requests as numbers; a control plane takes every number once.",
            f"The site had counted {_tokens(checked.cumulative)} in all when it was signed, and"
            f" {_count(header.log_size, 'manifest')} stood before this one.",
        ),
        not_proven=(
            "That this is the only manifest of this number: compare it with the control plane's"
            " receipt, or with the manifests before and after it.",
            "That every request which was served is in the ledger. Compare the engines' own"
            f" counters ({header.engines.generated_tokens} tokens generated since the"
            " installation), and ask tenants for proofs of single requests.",
            f"When it happened: {header.wall} is what the site's clock said.",
        ),
    )


def proof_in_words(verdict: ProofVerdict) -> Explanation:
    """Of a proof that was verified with the site's key."""
    record, line, header = verdict.record, verdict.line, verdict.header
    return Explanation(
        summary=f"Request {record.request_id} of tenant {record.tenant!r}: {record.input_tokens}"
        f" tokens in ({record.cached_tokens} cached), {record.output_tokens} out, {record.model},"
        f" {record.status}, settled at {iso(record.settled_at_ns)}.",
        proven=(
            _signed_by(header),
            f"The record is in manifest {_place(header)} with exactly these figures.",
            f"It is one of {_count(int(line.requests), 'request')} in the line of"
            f" {line.model} in {line.region} for the hour of {line.hour}, which adds up to"
            f" {line.input_tokens} tokens in and {line.output_tokens} out.",
            "What is billed by this manifest contains this request with these figures.",
        ),
        not_proven=(
            "That no other record was made for the same request, here or in another manifest:"
            " compare `GET /v1/usage` with what was asked.",
            "That the engine counted right: the record says how its tokens were measured"
            f" ({record.measured!r}).",
            f"When it happened: {header.wall} is what the site's clock said when it was sealed.",
            "That the control plane accepted this manifest: a receipt says that.",
        ),
    )


def redacted_in_words(window: RedactedWindow) -> Explanation:
    """Of a window with other tenants' lines hidden."""
    header = window.header
    return Explanation(
        summary=f"Manifest {_place(header)} of {header.appliance_id}:"
        f" {_count(len(window.lines), 'line')} shown with {_tokens(window.sums)},"
        f" {window.hidden} hidden.",
        proven=(
            _signed_by(header),
            "Every line that is shown is in the manifest with exactly these figures.",
            f"The {_count(window.hidden, 'hidden line')} were signed together with them and cannot"
            " be exchanged later.",
        ),
        not_proven=(
            "That no hidden line is of the same tenant: only who sees all lines can say so.",
            "That the hidden lines add up to the totals in the header.",
            f"When it happened: {header.wall} is what the site's clock said.",
        ),
    )


def receipt_in_words(receipt: Receipt) -> Explanation:
    """Of a receipt that was verified with the control plane's key."""
    good = sum(one.code in ("ACCEPTED", "ALREADY_ACCEPTED") for one in receipt.dispositions)
    others = len(receipt.dispositions) - good
    return Explanation(
        summary=f"Receipt {receipt.receipt_id} for {receipt.appliance_id}: epoch {receipt.epoch}"
        f" accepted through manifest {receipt.accepted_through}; {good} of"
        f" {_count(len(receipt.dispositions), 'manifest')} in it without reserve, {others} with.",
        proven=(
            "The control plane signed this receipt, and not a byte was changed since.",
            f"It has taken in every manifest of epoch {receipt.epoch} up to"
            f" {receipt.accepted_through}, the last with the hash {receipt.head_sha256[:16]}…, and"
            f" no other with that number. The log had {receipt.log_size} entries.",
            *(
                f"Manifest {one.epoch}-{one.seq}: {one.code}{_detail(one.detail)}"
                for one in receipt.dispositions
                if one.code not in ("ACCEPTED", "ALREADY_ACCEPTED")
            ),
            *(("The control plane takes nothing more until a person decides.",) * receipt.frozen),
        ),
        not_proven=(
            "That what was accepted has been invoiced, or at which price.",
            "That this is the newest receipt.",
        ),
    )


def entitlement_in_words(entitlement: Entitlement) -> Explanation:
    """Of an entitlement that was verified with the control plane's key."""
    return Explanation(
        summary=f"Entitlement {entitlement.entitlement_id} of {entitlement.customer} for"
        f" {entitlement.appliance_id}: from {entitlement.not_before} to {entitlement.expires},"
        f" lease until {entitlement.lease_until}.",
        proven=(
            "The control plane signed this entitlement, and not a byte was changed since.",
            f"It is for the site with the key {entitlement.appliance_key_id[:16]}… and no other.",
        ),
        not_proven=(
            "That it is the newest, or was not revoked since: a receipt carries what came later.",
        ),
    )


def _signed_by(header: Header) -> str:
    return (
        f"{header.appliance_id} signed it with the key {header.key_id[:16]}…, and not a byte was"
        " changed since."
    )


def _place(header: Header) -> str:
    return f"{header.epoch}-{header.seq}"


def _tokens(sums: Sums) -> str:
    return (
        f"{_count(sums.requests, 'request')}, {sums.input_tokens} tokens in"
        f" ({sums.cached_tokens} cached) and {sums.output_tokens} out"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _detail(detail: str) -> str:
    return f" ({detail})." if detail else "."
