"""Who this node is at its site: its certificate and key, the site's CA, where the appliance is.

All of it lies in `agent_state/identity`, 0700. Certificate and key are one file, so that they are
replaced together. The only user of cryptography in the agent.
"""

import base64
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from agent.durable import read_message, write_bytes, write_message
from agent.errors import IdentityBroken
from appliance.domain.ids import NodeId
from appliance.wire.join import Joined, RejoinRequest, rejoin_text

FOLDER: Final = "identity"
_PAPERS_FILE: Final = "node.pem"
_CA_FILE: Final = "site-ca.pem"
_ABOUT_FILE: Final = "identity.json"


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What is no secret of the joining."""

    node_id: str
    node_name: str
    site: str
    server: str  # https://HOST:PORT


@dataclass(frozen=True, slots=True)
class FreshKey:
    """A new key and the request for a certificate for it."""

    csr_pem: str
    key_pem: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Life:
    """From when to when a certificate is good; Unix seconds."""

    begin_s: int
    end_s: int


class Identity:
    """The identity in one folder. `node_id` and the rest do not change while it lasts."""

    def __init__(self, folder: Path, about: About) -> None:
        self._folder = folder
        self.about = about

    @property
    def node_id(self) -> NodeId:
        return NodeId(self.about.node_id)

    @property
    def papers_file(self) -> Path:
        """PEM: the certificate, then its key."""
        return self._folder / _PAPERS_FILE

    @property
    def ca_file(self) -> Path:
        return self._folder / _CA_FILE

    def life(self) -> Life:
        """Raises IdentityBroken."""
        certificate = self._certificate()
        return Life(
            int(certificate.not_valid_before_utc.timestamp()),
            int(certificate.not_valid_after_utc.timestamp()),
        )

    def renewed(self, key: FreshKey, joined: Joined) -> None:
        """Put a new certificate with its key in the place of the old ones."""
        write_bytes(self.papers_file, (joined.certificate_pem + key.key_pem).encode())

    def rejoin_request(self, key: FreshKey, now_s: int) -> RejoinRequest:
        """Shows the expired certificate, and that its key is here. Raises IdentityBroken."""
        try:
            old = load_pem_private_key(self.papers_file.read_bytes(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _broken(self.papers_file) from error
        if not isinstance(old, ec.EllipticCurvePrivateKey):
            raise _broken(self.papers_file)
        signature = old.sign(rejoin_text(key.csr_pem, now_s), ec.ECDSA(SHA256()))
        return RejoinRequest(
            certificate_pem=self._certificate().public_bytes(Encoding.PEM).decode(),
            csr_pem=key.csr_pem,
            at_s=now_s,
            signature=base64.b64encode(signature).decode(),
        )

    def _certificate(self) -> x509.Certificate:
        try:
            return x509.load_pem_x509_certificate(self.papers_file.read_bytes())
        except (OSError, ValueError) as error:
            raise _broken(self.papers_file) from error


def load_identity(agent_state: Path) -> Identity | None:
    """None: this home has not joined a site."""
    folder = agent_state / FOLDER
    about = read_message(folder / _ABOUT_FILE, About)
    return None if about is None else Identity(folder, about)


def prepare_folder(agent_state: Path) -> Path:
    """Where the identity lies, for this account alone. Raises OSError."""
    folder = agent_state / FOLDER
    agent_state.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    return folder


def save_identity(agent_state: Path, server: str, key: FreshKey, joined: Joined) -> Identity:
    """Keep what joining gave. What tells that there is an identity is written last."""
    folder = prepare_folder(agent_state)
    about = About(
        node_id=joined.node_id, node_name=joined.node_name, site=joined.site, server=server
    )
    identity = Identity(folder, about)
    (folder / _ABOUT_FILE).unlink(missing_ok=True)
    write_bytes(identity.ca_file, joined.ca_pem.encode())
    identity.renewed(key, joined)
    write_message(folder / _ABOUT_FILE, about)
    return identity


def fresh_key() -> FreshKey:
    """A new key of this node. The CA writes the names; the request's own is for people."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "crosslogic node")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    return FreshKey(
        request.public_bytes(Encoding.PEM).decode(),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    )


@dataclass(frozen=True, slots=True)
class Ca:
    """A CA's certificate, and nothing that came behind it."""

    pem: str
    sha256: str  # of its DER, 64 hex digits


def read_ca(pem: str) -> Ca | None:
    """The first certificate of a text; None: there is none.

    Others behind it are left out: whoever trusts the text as it came would trust those as well.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        return None
    return Ca(
        certificate.public_bytes(Encoding.PEM).decode(),
        sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
    )


def _broken(path: Path) -> IdentityBroken:
    return IdentityBroken(
        f"{path} does not hold a certificate with its key.",
        next_step="Join again with a new token: `cic node token create --node NAME`.",
    )
