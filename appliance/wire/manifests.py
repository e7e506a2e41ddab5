"""The admin API's messages about sealed manifests, version 1.

GET    /v1/manifests?since=EPOCH-SEQ   NDJSON of Manifest
GET    /v1/manifests/{ref}?tenant=     ManifestShown    `ref`: SEQ (newest epoch) or EPOCH-SEQ
POST   /v1/manifests/seal              Sealing
GET    /v1/manifests/verify            NDJSON of ManifestVerification, the verdict last
GET    /v1/manifests/key?manifest=REF  ManifestKey
POST   /v1/manifests/key/rotate        ManifestKey
GET    /v1/usage/{ref}/proof           UsageProof, of a record's or a request's id
"""

from typing import Literal

import msgspec

# accepted: a receipt of the control plane covers it.
ManifestState = Literal["sealed", "accepted"]


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Manifest(_Message, frozen=True):
    """What is told of a sealed window in a list."""

    epoch: int
    seq: int
    state: ManifestState
    sealed_at: str
    records: int
    lines: int
    input_tokens: int  # cached ones included
    cached_tokens: int
    output_tokens: int
    record_seq_lo: int  # numbers of the ledger
    record_seq_hi: int
    sha256: str  # of the payload that is signed


class LineShown(_Message, frozen=True):
    """One line of a manifest; where another tenant's is hidden, `{"redacted": leaf_sha256}`."""

    index: int
    leaf_sha256: str  # SHA-256(0x00 || the line's bytes): what the signed root is made of
    hidden: bool
    line: msgspec.Raw


class ManifestShown(_Message, frozen=True):
    """A manifest with what was signed. `envelope` is the DSSE envelope, byte for byte."""

    manifest: Manifest
    header: msgspec.Raw
    lines: list[LineShown]
    envelope: str


class Totals(_Message, frozen=True):
    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class Sealing(_Message, frozen=True):
    """What a seal made: nothing when `sealed` is 0, and then the newest manifest is named."""

    sealed: int  # manifests made; several where much was waiting
    epoch: int
    seq: int  # of the newest; 0: this epoch has none yet
    sha256: str
    records: int  # in those that were made, as the totals are
    totals: Totals
    manifests: list[Manifest]


class SealingStatus(_Message, frozen=True):
    """How far the ledger is sealed. `last_error` is "" when the last attempt succeeded."""

    newest: str  # EPOCH-SEQ of the newest manifest; "" when there is none
    sealed_at: str | None
    unsealed_records: int  # that the next manifest will hold
    last_error: str


class ManifestKey(_Message, frozen=True):
    """The key that signs the next manifest, or that signed the one that was asked for."""

    appliance_id: str
    key_id: str  # SHA-256 of its SubjectPublicKeyInfo
    since: str  # EPOCH-SEQ of the first manifest it signs
    pem: str


class ManifestVerification(_Message, frozen=True):
    """`checked` of `total` manifests. `done` only in the last message, which has the verdict."""

    done: bool
    ok: bool
    checked: int
    total: int
    records: int  # that were recomputed
    unsealed: int = 0  # records after the last manifest
    head_sha256: str = ""
    problems: list[str] = []
    notes: list[str] = []  # no defects: clocks that were set back, and the like


class UsageProof(_Message, frozen=True):
    """`proof` is the object as it is given to a tenant; `cic verify` checks it."""

    record_id: str
    request_id: str
    epoch: int
    seq: int
    proof: msgspec.Raw
