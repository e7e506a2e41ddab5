"""What the control plane knows of sites: keys, manifests, documents, evidence, operators' acts."""

from enum import StrEnum
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
)

from appliance.controlplane.schema import METADATA


class ManifestState(StrEnum):
    ACCEPTED = "accepted"
    WAITING = "waiting"  # behind a gap: verified, not posted


# One row is locked by whoever changes anything of the site: that puts changes in their order.
SITES: Final = Table(
    "sites",
    METADATA,
    Column("appliance_id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("customer", Text, nullable=False),  # as the entitlement names it
    Column("enrolled_at_ns", BigInteger, nullable=False),
    Column("reported", LargeBinary, nullable=False),  # `reported.ReportedState`
    Column("epoch", BigInteger, nullable=False),
    Column("accepted_through", BigInteger, nullable=False),
    Column("head_sha256", Text, nullable=False),
    Column("frozen", Boolean, nullable=False),
    Column("frozen_reason", Text, nullable=False, default=""),
    Column("last_received_at_ns", BigInteger),  # of the last manifest that was accepted
    Column("lease_days", Integer, nullable=False),
    Column("waiting", Integer, nullable=False),  # manifests behind a gap
)

SITE_KEYS: Final = Table(
    "site_keys",
    METADATA,
    Column("appliance_id", Text, ForeignKey("sites.appliance_id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # from 0, in their order
    Column("key_id", Text, nullable=False, index=True),
    Column("pem", Text, nullable=False),
    Column("since_epoch", BigInteger, nullable=False),
    Column("since_seq", BigInteger, nullable=False),
    Column("until_epoch", BigInteger),
    Column("until_seq", BigInteger),
    Column("revoked_epoch", BigInteger),
    Column("revoked_seq", BigInteger),
)

MANIFESTS: Final = Table(
    "manifests",
    METADATA,
    Column("appliance_id", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("state", Text, nullable=False),
    Column("sha256", Text, nullable=False),  # of the payload
    Column("receipt_id", Text, nullable=False),  # that tells of it
    Column("holds", Text, nullable=False),  # codes with spaces between
    Column("via", Text, nullable=False),  # wire, file
    Column("received_at_ns", BigInteger, nullable=False),
    Column("line_count", Integer, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("lines", LargeBinary, nullable=False),
    Index("manifests_waiting", "appliance_id", "state", "epoch", "seq"),
)

# Receipts, entitlements, revocations, grants, rotations, by site; each as it was signed.
DOCUMENTS: Final = Table(
    "documents",
    METADATA,
    Column("appliance_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # from 1 for each site
    Column("kind", Text, nullable=False),  # as in bundles, and key-rotation
    Column("document_id", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Index("documents_kind", "appliance_id", "kind", "number"),
    Index("documents_id", "appliance_id", "kind", "document_id", unique=True),
)

# What was refused, as it came: of a fork the second one, of the rest so much as is allowed.
EVIDENCE: Final = Table(
    "evidence",
    METADATA,
    Column("appliance_id", Text, primary_key=True),  # "" for what names no known site
    Column("sha256", Text, primary_key=True),  # of the envelope and the lines as they came
    Column("code", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),  # as it came; what is kept may be shorter
    Column("envelope", LargeBinary, nullable=False),
    Column("lines", LargeBinary, nullable=False),
    Index("evidence_at", "appliance_id", "at_ns"),
)

ENROLMENT_CODES: Final = Table(
    "enrolment_codes",
    METADATA,
    Column("code_id", Text, primary_key=True),
    Column("secret_sha256", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("terms", Text, nullable=False),  # JSON of `licences.Terms`
    Column("made_at_ns", BigInteger, nullable=False),
    Column("expires_at_ns", BigInteger, nullable=False),
    Column("appliance_id", Text),  # who used it
    Column("used_at_ns", BigInteger),
)

NONCES: Final = Table(
    "nonces",
    METADATA,
    Column("appliance_id", Text, primary_key=True),
    Column("nonce", Text, primary_key=True),
    Column("expires_at_ns", BigInteger, nullable=False, index=True),
)

# Each row holds the hash of the one before: `audit.py`.
OPERATOR_AUDIT: Final = Table(
    "operator_audit",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object_kind", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("object_name", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("sha256", Text, nullable=False),
)
