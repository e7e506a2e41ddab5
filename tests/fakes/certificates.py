"""A certificate authority of the tests' own, and what it issues: PEM files, key and all."""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.domain.ids import NodeId
from appliance.domain.tls_names import APPLIANCE_NAME, node_name, replicas_name

HOUR = datetime.timedelta(hours=1)
USAGES = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]


@dataclass(frozen=True, slots=True)
class Papers:
    """One PEM file with key and certificate, and the file of the CA."""

    file: Path
    ca_file: Path

    def client(self) -> ssl.SSLContext:
        """To speak to others of the same CA with this certificate."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.file)
        return context


class Authority:
    """Issues papers into a folder."""

    def __init__(self, folder: Path, name: str = "site") -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}-ca.pem"
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - HOUR)
            .not_valid_after(now + 24 * HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.folder = folder
        self._prefix = name

    def issue(
        self,
        name: str,
        *dns: str,
        life: datetime.timedelta = HOUR,
        usages: list[x509.ObjectIdentifier] | None = None,
    ) -> Papers:
        """Write `<prefix>-<name>.pem`, over what was there before."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - HOUR)
            .not_valid_after(now + life)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(each) for each in dns]), critical=False
            )
            .add_extension(x509.ExtendedKeyUsage(usages or USAGES), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"{self._prefix}-{name}.pem"
        temporary = file.with_suffix(".new")
        temporary.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        temporary.replace(file)
        return Papers(file, self.file)

    def appliance(self) -> Papers:
        return self.issue("appliance", APPLIANCE_NAME)

    def node(self, node_id: NodeId) -> Papers:
        return self.issue(node_id, node_name(node_id), replicas_name(node_id))
