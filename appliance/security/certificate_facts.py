"""What a certificate says of itself, for people."""

from dataclasses import dataclass
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    subject: str  # RFC 4514
    serial: str  # hexadecimal, as OpenSSL prints it
    sha256: str  # of its DER
    not_before_ns: int
    not_after_ns: int


def facts_of(pem: str) -> CertificateFacts:
    """Raises ValueError: this is no certificate."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return CertificateFacts(
        subject=certificate.subject.rfc4514_string(),
        serial=f"{certificate.serial_number:X}",
        sha256=sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        not_before_ns=int(certificate.not_valid_before_utc.timestamp()) * 1_000_000_000,
        not_after_ns=int(certificate.not_valid_after_utc.timestamp()) * 1_000_000_000,
    )
