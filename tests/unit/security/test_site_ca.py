"""The site's CA: it writes every name itself, and takes nothing on trust but a key that signed."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from appliance.domain.ids import NodeId
from appliance.security.errors import BadCertificateRequest, SecretDamaged, SecretExposed
from appliance.security.site_ca import CERTIFICATE_FILE, KEY_FILE, ensure_authority
from tests.fakes.clock import START_NS

NODE = NodeId("node_00aa")
DAY_S = 86_400.0


@pytest.fixture
def secrets(tmp_path):
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def authority(secrets):
    return ensure_authority(secrets, START_NS)


def request_of(key, *names, algorithm=SHA256(), common_name="somebody"):  # noqa: B008 - it is stateless
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True
        ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, algorithm)


def pem_of(request):
    return request.public_bytes(Encoding.PEM).decode()


def good_request():
    return pem_of(request_of(ec.generate_private_key(ec.SECP256R1())))


def seen(issued):
    return x509.load_pem_x509_certificate(issued.pem.encode())


def names_of(certificate, kind):
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(kind)


def test_names_that_a_request_asks_for_are_not_looked_at(authority):
    key = ec.generate_private_key(ec.SECP256R1())
    asked = request_of(
        key, "appliance.crosslogic.internal", "node-ff.node.crosslogic.internal", common_name="root"
    )
    certificate = seen(authority.issue_node(pem_of(asked), NODE, START_NS, DAY_S))
    assert names_of(certificate, x509.DNSName) == [
        "node-00aa.node.crosslogic.internal",
        "*.node-00aa.node.crosslogic.internal",
    ]
    assert names_of(certificate, x509.UniformResourceIdentifier) == [
        "crosslogic://site/node/node_00aa"
    ]
    assert certificate.subject.rfc4514_string() == "CN=node_00aa"
    assert certificate.public_key() == key.public_key()


def test_a_node_can_vouch_for_nobody(authority):
    certificate = seen(authority.issue_node(good_request(), NODE, START_NS, DAY_S))
    extensions = certificate.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (False, False, True)
    assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    }


def test_a_verifier_of_its_own_takes_what_the_ca_issues_and_nothing_of_another_ca(
    authority, tmp_path
):
    """The rules of the web's PKI, by another implementation than OpenSSL's."""
    other_folder = tmp_path / "other"
    other_folder.mkdir(mode=0o700)
    other = ensure_authority(other_folder, START_NS)
    moment = datetime.fromtimestamp(START_NS / 1e9, UTC)
    name = x509.DNSName("node-00aa.node.crosslogic.internal")
    certificate = seen(authority.issue_node(good_request(), NODE, START_NS, DAY_S))

    def verify(trusted):
        roots = Store([x509.load_pem_x509_certificate(trusted.pem.encode())])
        verifier = PolicyBuilder().store(roots).time(moment).build_server_verifier(name)
        return verifier.verify(certificate, [])

    assert verify(authority)[0] == certificate
    with pytest.raises(x509.verification.VerificationError):
        verify(other)


def test_a_certificate_begins_before_now_and_ends_when_told(authority):
    issued = authority.issue_node(good_request(), NODE, START_NS, 60)
    assert issued.not_after_ns == START_NS + 60 * 10**9
    assert START_NS - 3_600 * 10**9 <= issued.not_before_ns < START_NS
    assert int(issued.serial, 16) == seen(issued).serial_number


def test_no_certificate_outlives_the_ca(authority):
    ca_end = x509.load_pem_x509_certificate(authority.pem.encode()).not_valid_after_utc
    near_its_end_ns = int(ca_end.timestamp() - 3_600) * 10**9
    issued = authority.issue_node(good_request(), NODE, near_its_end_ns, DAY_S)
    assert seen(issued).not_valid_after_utc == ca_end


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), SHA256()),
        (ec.generate_private_key(ec.SECP256K1()), SHA256()),
        (rsa.generate_private_key(65_537, 2_048), SHA256()),
        (ed25519.Ed25519PrivateKey.generate(), None),
    ],
    ids=["P-384", "secp256k1", "RSA", "Ed25519"],
)
def test_keys_of_another_kind_get_no_certificate(authority, key, algorithm):
    with pytest.raises(BadCertificateRequest):
        authority.issue_node(pem_of(request_of(key, algorithm=algorithm)), NODE, START_NS, DAY_S)


def test_a_request_with_another_key_put_in_is_refused(authority):
    """Somebody's public key with another's signature: who asks must have the key."""
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    der = request_of(key).public_bytes(Encoding.DER)

    def point(of):
        numbers = of.public_key().public_numbers()
        return numbers.x.to_bytes(32) + numbers.y.to_bytes(32)

    assert der.count(point(key)) == 1
    swapped = x509.load_der_x509_csr(der.replace(point(key), point(other)))
    with pytest.raises(BadCertificateRequest, match="not signed"):
        authority.issue_node(pem_of(swapped), NODE, START_NS, DAY_S)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "\x00" * 40,
        "é" * 40,
    ],
)
def test_what_is_no_request_is_refused(authority, text):
    with pytest.raises(BadCertificateRequest):
        authority.issue_node(text, NODE, START_NS, DAY_S)


def test_a_certificate_that_is_shown_is_read_only_when_this_ca_issued_it(authority, tmp_path):
    other_folder = tmp_path / "other"
    other_folder.mkdir(mode=0o700)
    other = ensure_authority(other_folder, START_NS)
    issued = authority.issue_node(good_request(), NODE, START_NS, 60)
    shown = authority.read(issued.pem)
    assert (shown.serial, shown.not_after_ns) == (issued.serial, issued.not_after_ns)
    for text in (other.issue_node(good_request(), NODE, START_NS, 60).pem, other.pem, "", "x"):
        with pytest.raises(BadCertificateRequest):
            authority.read(text)


def test_a_signature_counts_for_its_message_and_key_alone(authority):
    key = ec.generate_private_key(ec.SECP256R1())
    shown = authority.read(authority.issue_node(pem_of(request_of(key)), NODE, START_NS, DAY_S).pem)
    signature = key.sign(b"message", ec.ECDSA(SHA256()))
    assert shown.verify(signature, b"message")
    assert not shown.verify(signature, b"another")
    assert not shown.verify(b"", b"message")
    stranger = ec.generate_private_key(ec.SECP256R1())
    assert not shown.verify(stranger.sign(b"message", ec.ECDSA(SHA256())), b"message")


def test_the_ca_is_the_same_the_next_time(secrets, authority):
    again = ensure_authority(secrets, START_NS + 10**18)
    assert again.fingerprint == authority.fingerprint
    assert {path.name for path in secrets.iterdir()} == {KEY_FILE, CERTIFICATE_FILE}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in secrets.iterdir())
    assert authority.fingerprint in repr(authority)
    assert len(repr(authority)) < 100


def test_a_crash_between_key_and_certificate_is_made_good(secrets):
    first = ensure_authority(secrets, START_NS)
    (secrets / CERTIFICATE_FILE).unlink()
    second = ensure_authority(secrets, START_NS)
    issued = second.issue_node(good_request(), NODE, START_NS, DAY_S)
    assert first.read(issued.pem).serial == issued.serial  # the same key


def test_files_that_do_not_belong_together_are_refused(secrets, tmp_path):
    ensure_authority(secrets, START_NS)
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    ensure_authority(other, START_NS)
    (secrets / CERTIFICATE_FILE).write_bytes((other / CERTIFICATE_FILE).read_bytes())
    with pytest.raises(SecretDamaged, match="does not belong"):
        ensure_authority(secrets, START_NS)


@pytest.mark.parametrize("content", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_damaged_certificate_is_told_and_not_replaced(secrets, content):
    """A new one would be another site to every node."""
    ensure_authority(secrets, START_NS)
    (secrets / CERTIFICATE_FILE).write_bytes(content)
    with pytest.raises(SecretDamaged, match=CERTIFICATE_FILE):
        ensure_authority(secrets, START_NS)
    assert (secrets / CERTIFICATE_FILE).read_bytes() == content


def test_a_key_that_others_can_read_is_refused(secrets):
    ensure_authority(secrets, START_NS)
    (secrets / KEY_FILE).chmod(0o644)
    with pytest.raises(SecretExposed):
        ensure_authority(secrets, START_NS)
