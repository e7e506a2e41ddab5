"""The admin API's messages about the certificates of a site.

GET    /v1/certificates        list[SiteCertificate]
"""

from typing import Literal

from appliance.wire.admin_message import Message

# site CA: vouches for nodes and the appliance. appliance: shown to nodes. node: shown by one.
# endpoint: what clients on the LAN see.
CertificateKind = Literal["site CA", "appliance", "node", "endpoint"]
# none: there is no certificate, `used_for` says what that means.
CertificateState = Literal["good", "ending", "expired", "revoked", "replaced", "none"]


class SiteCertificate(Message, frozen=True, kw_only=True):
    """One certificate. Of nodes' the site keeps serial and dates alone."""

    kind: CertificateKind
    name: str  # the node's, or what it is
    state: CertificateState
    subject: str | None = None
    serial: str | None = None
    fingerprint: str | None = None  # SHA-256 of its DER
    issued_at: str | None = None
    expires_at: str | None = None
    days_left: int | None = None
    used_for: str
    renewal: str  # how it is made new, and what a person does for it
