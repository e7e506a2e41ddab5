"""Ed25519 keys: RFC 8032's own vectors, PEM, files, and keys that are none."""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.security.errors import BadPublicKey, SecretDamaged, SecretExposed, SecretMissing
from appliance.security.signing import (
    PublicKey,
    SigningKey,
    ensure_signing_key,
    load_signing_key,
)

# RFC 8032 section 7.1, tests 1 to 3: seed, public key, message, signature.
VECTORS = (
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
)


def pem_of(raw: bytes, prefix: str = "302a300506032b6570032100") -> str:
    """The PEM of a raw key; the prefix is that of Ed25519 in RFC 8410."""
    body = b64encode(bytes.fromhex(prefix) + raw).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(("seed", "public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey(bytes.fromhex(seed))
    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert key.public.verify(bytes.fromhex(signature), bytes.fromhex(message))
    assert not key.public.verify(bytes.fromhex(signature), b"other")
    assert not key.public.verify(bytes.fromhex(signature)[:-1], bytes.fromhex(message))


def test_a_public_key_travels_as_pem_and_is_named_by_its_hash() -> None:
    key = SigningKey(bytes(32)).public
    assert key.pem == pem_of(key.raw)
    again = PublicKey.from_pem(key.pem.encode())
    assert again == key
    assert hash(again) == hash(key)
    der = bytes.fromhex("302a300506032b6570032100") + key.raw
    assert key.key_id == sha256(der).hexdigest()
    assert key != SigningKey(bytes([1]) * 32).public
    assert key != key.pem


def test_a_signature_with_another_scalar_is_refused() -> None:
    """S + L signs the same equation; RFC 8032 section 5.1.7 refuses it, or signatures vary."""
    key = SigningKey(bytes(32))
    signature = key.sign(b"x")
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") + order
    assert key.public.verify(signature, b"x")
    assert not key.public.verify(signature[:32] + scalar.to_bytes(32, "little"), b"x")


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "no key",
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        pem_of(bytes(31)),
        pem_of(bytes(32), "302a300506032b6571032100"),  # an algorithm that nobody knows
        pem_of(bytes(32), "302a300506032b656e032100"),  # X25519
        "x" * 10_000,
        "ä",
    ],
)
def test_what_is_no_ed25519_key_is_refused(pem: str) -> None:
    with pytest.raises(BadPublicKey) as refused:
        PublicKey.from_pem(pem)
    assert refused.value.next_step


def test_keys_of_other_kinds_are_refused() -> None:
    private = (ec.generate_private_key(ec.SECP256R1()), x25519.X25519PrivateKey.generate())
    for other in private:
        pem = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(BadPublicKey):
            PublicKey.from_pem(pem)


PRIME = 2**255 - 19


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("y", [0, 1, PRIME - 1, PRIME, PRIME + 1])
def test_a_key_with_which_anybody_can_sign_is_refused(y: int, sign: int) -> None:
    encoded = bytearray(y.to_bytes(32, "little"))
    encoded[31] |= sign
    with pytest.raises(BadPublicKey):
        PublicKey.from_pem(pem_of(bytes(encoded)))


def test_the_points_of_order_eight_are_refused() -> None:
    d = -121665 * pow(121666, -1, PRIME) % PRIME
    found = []
    for name in (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ):
        y = int.from_bytes(bytes.fromhex(name), "little")
        # Doubled, such a point has y = 0 and order four: x^2 = -y^2 on the curve.
        x2 = (y * y - 1) * pow(d * y * y + 1, -1, PRIME) % PRIME
        assert (x2 + y * y) % PRIME == 0
        found.append(y)
        for sign in (0, 0x80):
            raw = bytearray(y.to_bytes(32, "little"))
            raw[31] |= sign
            with pytest.raises(BadPublicKey, match="anybody"):
                PublicKey.from_pem(pem_of(bytes(raw)))
    assert sum(found) == PRIME  # one is the other's negative


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "manifest-key"
    with pytest.raises(SecretMissing):
        load_signing_key(path)
    key = ensure_signing_key(path, lambda size: bytes([7]) * size)
    assert key.key_id == SigningKey(bytes([7]) * 32).key_id
    assert ensure_signing_key(path).key_id == key.key_id
    assert path.stat().st_mode & 0o777 == 0o600
    assert repr(key) == f"SigningKey({key.key_id})"
    path.chmod(0o644)
    with pytest.raises(SecretExposed):
        load_signing_key(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(SecretDamaged):
        load_signing_key(path)
