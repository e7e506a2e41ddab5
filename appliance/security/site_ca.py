"""The site's own certificate authority: who is the appliance, and who is which node.

- One CA for each site, ECDSA P-256. Its key follows from 32 secret bytes in `secrets/`; its
  certificate lies beside them, because nodes know it by the SHA-256 of its DER.
- Names in certificates are written here, from ids (`domain/tls_names.py`). What a request for a
  certificate says about names is not looked at: only its key counts, and that its holder has it.
- Certificates are good from a few minutes before now, for clocks that differ.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.domain.ids import NodeId
from appliance.domain.tls_names import (
    APPLIANCE_NAME,
    APPLIANCE_URI,
    node_name,
    node_uri,
    replicas_name,
)
from appliance.security.errors import BadCertificateRequest, SecretDamaged
from appliance.security.secrets import SECRET_BYTES, read_secret, write_secret

KEY_FILE: Final = "site-ca-key"
CERTIFICATE_FILE: Final = "site-ca.pem"
PEM_BYTES_MAX: Final = 16 * 1024
_CA_DAYS: Final = 20 * 365
_BACKDATED: Final = timedelta(minutes=10)
_CURVE: Final = ec.SECP256R1()
# The order of P-256's group (SEC 2, section 2.4.2): private keys are 1 … order - 1.
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate as it is given away and remembered."""

    serial: str  # hexadecimal, without leading zeros, in capitals as OpenSSL prints it
    pem: str
    not_before_ns: int
    not_after_ns: int


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, for this program's own end of connections."""

    issued: Issued
    key_pem: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Presented:
    """A certificate of this CA, shown without TLS; `verify` tells whether its key is there too."""

    serial: str
    not_after_ns: int
    key: ec.EllipticCurvePublicKey = field(repr=False)

    def verify(self, signature: bytes, message: bytes) -> bool:
        try:
            self.key.verify(signature, message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


class SiteAuthority:
    """The CA, able to issue. `repr` shows its fingerprint alone."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key
        self.pem: str = certificate.public_bytes(Encoding.PEM).decode()
        self.fingerprint: str = sha256(certificate.public_bytes(Encoding.DER)).hexdigest()

    def __repr__(self) -> str:
        return f"SiteAuthority({self.fingerprint})"

    def issue_node(self, csr_pem: str, node_id: NodeId, now_ns: int, life_s: float) -> Issued:
        """A certificate for the key of the request, and the names of that node.

        Raises BadCertificateRequest.
        """
        dns = (node_name(node_id), replicas_name(node_id))
        names = (*map(x509.DNSName, dns), x509.UniformResourceIdentifier(node_uri(node_id)))
        return self._issue(_requested_key(csr_pem), node_id, names, now_ns, life_s)

    def issue_appliance(self, now_ns: int, life_s: float) -> Identity:
        """A certificate with a new key, for the appliance itself."""
        key = ec.generate_private_key(_CURVE)
        names = (x509.DNSName(APPLIANCE_NAME), x509.UniformResourceIdentifier(APPLIANCE_URI))
        issued = self._issue(key.public_key(), "appliance", names, now_ns, life_s)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return Identity(issued, pem)

    def read(self, certificate_pem: str) -> Presented:
        """A certificate that this CA issued, expired or not. Raises BadCertificateRequest."""
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem.encode()[:PEM_BYTES_MAX])
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise BadCertificateRequest(
                "The certificate is none of this site's.", next_step="Join with a new token."
            ) from error
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise BadCertificateRequest("The certificate's key is of another kind.")
        return Presented(
            _serial(certificate.serial_number), _ns(certificate.not_valid_after_utc), key
        )

    def _issue(
        self,
        key: ec.EllipticCurvePublicKey,
        common_name: str,
        names: Sequence[x509.GeneralName],
        now_ns: int,
        life_s: float,
    ) -> Issued:
        now = _moment(now_ns)
        after = min(now + timedelta(seconds=life_s), self._certificate.not_valid_after_utc)
        serial = x509.random_serial_number()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
                ),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, SHA256())
        )
        return Issued(
            _serial(serial),
            certificate.public_bytes(Encoding.PEM).decode(),
            _ns(certificate.not_valid_before_utc),
            _ns(certificate.not_valid_after_utc),
        )


def ensure_authority(
    folder: Path, now_ns: int, entropy: Callable[[int], bytes] = os.urandom
) -> SiteAuthority:
    """The CA of the site whose secrets are in `folder`; it is made first when there is none.

    Raises SecretMissing, SecretExposed or SecretDamaged, naming the file.
    """
    key_file, certificate_file = folder / KEY_FILE, folder / CERTIFICATE_FILE
    if not key_file.exists() and not certificate_file.exists():
        write_secret(key_file, entropy(SECRET_BYTES))
    key = _key_of(read_secret(key_file))
    if not certificate_file.exists():
        # Written last: a crash between the two leaves the key, and nobody knows it yet.
        write_secret(certificate_file, _self_signed(key, now_ns).public_bytes(Encoding.PEM))
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except (OSError, ValueError) as error:
        raise SecretDamaged(
            f"{certificate_file} is no certificate: {error}.",
            next_step="Restore it from a backup: nodes know the site by it.",
        ) from error
    if _public_bytes(certificate.public_key()) != _public_bytes(key.public_key()):
        raise SecretDamaged(
            f"{certificate_file} does not belong to {key_file}.",
            next_step="Restore both from the same backup: nodes know the site by them.",
        )
    return SiteAuthority(certificate, key)


def _self_signed(key: ec.EllipticCurvePrivateKey, now_ns: int) -> x509.Certificate:
    public = key.public_key()
    name = f"CrossLogic site {sha256(_public_bytes(public)).hexdigest()[:12]}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = _moment(now_ns)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, SHA256())
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _requested_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode()[:PEM_BYTES_MAX])
        proven = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadCertificateRequest("This is no request for a certificate.") from error
    if not proven:
        raise BadCertificateRequest("The request for a certificate is not signed by its key.")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadCertificateRequest("Keys of nodes are ECDSA on P-256.")
    return key


def _key_of(seed: bytes) -> ec.EllipticCurvePrivateKey:
    """A key from 32 secret bytes. The remainder favours some keys by 2^-32: too little to use."""
    return ec.derive_private_key(int.from_bytes(seed) % (_ORDER - 1) + 1, _CURVE)


def _public_bytes(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _serial(number: int) -> str:
    return f"{number:X}"


def _moment(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC)


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000_000
