"""The vendor's side as far as a site sees it: a key, and documents signed with it."""

from collections.abc import Sequence
from typing import Any

import msgspec

from appliance.domain.clock import iso
from appliance.manifests.canonical import encode
from appliance.manifests.documents import (
    ENTITLEMENT_TYPE,
    EPOCH_GRANT_TYPE,
    NO_HASH,
    PLANS_TYPE,
    PRICE_BOOK_TYPE,
    RECEIPT_TYPE,
    REVOCATION_TYPE,
    Document,
    Entitlement,
    EpochGrant,
    KeyRevocation,
    Plans,
    PriceBook,
    Receipt,
    TenantPlan,
)
from appliance.manifests.envelope import sign
from appliance.security.signing import SigningKey

DAY_NS = 86_400 * 1_000_000_000
_TYPES: dict[type[Document], str] = {
    Receipt: RECEIPT_TYPE,
    Entitlement: ENTITLEMENT_TYPE,
    EpochGrant: EPOCH_GRANT_TYPE,
    KeyRevocation: REVOCATION_TYPE,
    PriceBook: PRICE_BOOK_TYPE,
    Plans: PLANS_TYPE,
}


class Vendor:
    """Signs what it is told to, right or wrong, for one site."""

    def __init__(
        self, appliance_id: str, appliance_key_id: str, *, seed: bytes = b"v" * 32
    ) -> None:
        self.appliance_id = appliance_id
        self.appliance_key_id = appliance_key_id
        self.key = SigningKey(seed)
        self._number = 0

    def sign(self, document: Document) -> bytes:
        return sign(_TYPES[type(document)], encode(document), self.key).to_bytes()

    def receipt(self, **changes: Any) -> Receipt:
        self._number += 1
        plain = Receipt(
            receipt_id=f"rcp_{self._number}",
            appliance_id=self.appliance_id,
            epoch=1,
            accepted_through=0,
            head_sha256=NO_HASH,
            log_size=0,
            log_root=NO_HASH,
            dispositions=(),
            frozen=False,
            received_at="2027-01-15T08:00:00.000Z",
            nonce=f"{self._number:032x}",
            lease_until="",
            checkpoint="",
        )
        return msgspec.structs.replace(plain, **changes)

    def entitlement(self, at_ns: int, *, lease_days: int = 30, **changes: Any) -> Entitlement:
        """Issued at `at_ns`, in force from then on for a year."""
        plain = Entitlement(
            entitlement_id=f"ent_{at_ns}",
            customer="Acme",
            appliance_id=self.appliance_id,
            appliance_key_id=self.appliance_key_id,
            not_before=iso(at_ns),
            expires=iso(at_ns + 365 * DAY_NS),
            lease_until=iso(at_ns + lease_days * DAY_NS),
            grace_days=14,
            gpu_count=0,
            reserved_tokens_per_s=0,
            models=(),
            offline_report_days_max=400,
            revocation_epoch=0,
            throttle_tokens_per_s=0,
            issued_at=iso(at_ns),
        )
        return msgspec.structs.replace(plain, **changes)

    def plans(self, version: int, tenants: Sequence[TenantPlan]) -> Plans:
        return Plans(
            appliance_id=self.appliance_id,
            version=version,
            tenants=tuple(tenants),
            at="2027-01-15T08:00:00.000Z",
        )

    def price_book(self, version: int) -> PriceBook:
        return PriceBook(
            version=version,
            currency="usd",
            prices=(),
            regions=(),
            free_tokens_per_month="0",
            at="2027-01-15T08:00:00.000Z",
        )
