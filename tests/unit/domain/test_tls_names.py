"""Names in certificates: what OpenSSL matches, for the ids that we make."""

import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.domain.ids import NodeId, ReplicaId
from appliance.domain.tls_names import node_name, replica_name, replicas_name

NODE = NodeId("nod_411c89d8897915f23768cbe1")
REPLICA = ReplicaId("rep_6691808d2ca67a11a3c209cf")


def _handshake(pem, path, name):
    """A handshake in memory: the client trusts the certificate and asks for `name`."""
    path.write_bytes(pem)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(path)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.load_verify_locations(path)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    for end in (client, server, client):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue


@pytest.fixture
def pem():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(node_name(NODE)), x509.DNSName(replicas_name(NODE))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize("name", [node_name(NODE), replica_name(REPLICA, NODE)])
def test_a_node_and_its_replicas_are_matched(pem, tmp_path, name):
    _handshake(pem, tmp_path / "node.pem", name)


@pytest.mark.parametrize(
    "name",
    [
        node_name(NodeId("nod_4863b40bdb13c7004451d795")),
        replica_name(REPLICA, NodeId("nod_0460695411aaf732ac71d640")),
        f"{REPLICA}.{node_name(NODE)}",  # an underscore is matched by no wildcard
        f"deep.{replica_name(REPLICA, NODE)}",
    ],
)
def test_no_other_name_is_matched(pem, tmp_path, name):
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(pem, tmp_path / "node.pem", name)
