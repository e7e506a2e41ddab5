"""Checkpoints: the public formats, and nothing else taken."""

from base64 import b64decode, b64encode
from dataclasses import replace
from hashlib import sha256

import pytest

from appliance.manifests.checkpoint import (
    Checkpoint,
    NoteSignature,
    cosign,
    key_hash,
    open_checkpoint,
    origin_of,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
    verify_cosignature,
)
from appliance.manifests.errors import BadCheckpoint
from appliance.manifests.keys import KnownKey, KnownSite
from appliance.manifests.merkle import EMPTY_ROOT, Frontier
from appliance.security.signing import PublicKey
from tests.fakes.sites import Site, signing_key

KEY, WITNESS = signing_key(1), signing_key(2)
SITE = Site()
for _ in range(3):
    SITE.seal(1)
SIGNED = sign_checkpoint(SITE.appliance_id, SITE.state.log, KEY)
COSIGNED = cosign(SIGNED, "control-plane.example", WITNESS, 1_795_375_800)


def public_key(raw: bytes) -> PublicKey:
    der = bytes.fromhex("302a300506032b6570032100") + raw  # RFC 8410
    body = b64encode(der).decode()
    return PublicKey.from_pem(f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")


def test_the_example_of_the_signed_note_specification_verifies() -> None:
    # C2SP signed-note: the key "PeterNeumann+c74f20a3+ARpc…" and its note.
    encoded = "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    line = (
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6K"
        "E6RyyBwJnAM="
    )
    key = public_key(b64decode(encoded)[1:])
    assert key_hash("PeterNeumann", b"\x01", key).hex() == "c74f20a3"
    signature = b64decode(line)
    assert signature[:4].hex() == "c74f20a3"
    assert key.verify(signature[4:], text.encode())


def test_a_checkpoint_is_the_note_of_the_specification() -> None:
    origin = "crosslogic-appliance/apl_0123456789abcdef01234567"
    body = f"{origin}\n3\n{b64encode(SITE.state.log.root()).decode()}\n"
    short = sha256(f"{origin}\n\x01".encode() + KEY.public.raw).digest()[:4]
    line = b64encode(short + KEY.sign(body.encode())).decode()
    assert SIGNED.note() == f"{body}\n\u2014 {origin} {line}\n"
    verify_checkpoint(parse_checkpoint(SIGNED.note()), SITE.appliance_id, KEY.public)


def test_a_cosignature_is_that_of_the_specification() -> None:
    line = COSIGNED.note().splitlines()[-1]
    name, encoded = line.removeprefix("\u2014 ").split(" ")
    raw = b64decode(encoded)
    assert name == "control-plane.example"
    assert raw[:4] == sha256(b"control-plane.example\n\x04" + WITNESS.public.raw).digest()[:4]
    assert int.from_bytes(raw[4:12], "big") == 1_795_375_800
    message = f"cosignature/v1\ntime 1795375800\n{SIGNED.body}".encode()
    assert WITNESS.public.verify(raw[12:], message)
    again = parse_checkpoint(COSIGNED.note())
    assert again == COSIGNED
    assert verify_cosignature(again, name, WITNESS.public) == 1_795_375_800
    verify_checkpoint(again, SITE.appliance_id, KEY.public)  # the site's own is still there


def test_another_key_name_site_or_tree_is_refused() -> None:
    with pytest.raises(BadCheckpoint, match="not signed"):
        verify_checkpoint(SIGNED, SITE.appliance_id, WITNESS.public)
    with pytest.raises(BadCheckpoint, match="another log"):
        verify_checkpoint(SIGNED, "apl_other", KEY.public)
    with pytest.raises(BadCheckpoint, match="not cosigned"):
        verify_cosignature(SIGNED, "control-plane.example", WITNESS.public)
    with pytest.raises(BadCheckpoint, match="not cosigned"):
        verify_cosignature(COSIGNED, "control-plane.example", KEY.public)
    for changed in (replace(COSIGNED, size=4), replace(COSIGNED, root=bytes(32))):
        with pytest.raises(BadCheckpoint):
            verify_checkpoint(changed, SITE.appliance_id, KEY.public)
        with pytest.raises(BadCheckpoint):
            verify_cosignature(changed, "control-plane.example", WITNESS.public)
    moved = COSIGNED.signatures[1]
    later = (moved.signature[:8][:-1] + b"\0") + moved.signature[8:]
    dated = replace(COSIGNED, signatures=(replace(moved, signature=later),))
    with pytest.raises(BadCheckpoint):
        verify_cosignature(dated, "control-plane.example", WITNESS.public)


NOTE = COSIGNED.note()
ORIGIN = origin_of(SITE.appliance_id)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        NOTE[:-1],
        NOTE + "\n",
        NOTE + "more\n",
        NOTE.replace("\n3\n", "\n03\n"),
        NOTE.replace("\n3\n", "\n+3\n"),
        NOTE.replace("\n3\n", "\n3 \n"),
        NOTE.replace("\n3\n", "\n-3\n"),
        NOTE.replace("\n3\n", "\n٣\n"),
        NOTE.replace("\n3\n", f"\n{2**63}\n"),
        NOTE.replace("\n3\n", "\n\n"),
        NOTE.replace("\n\n", "\nextension\n\n"),
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("\u2014 ", "- "),
        NOTE.replace("\u2014 ", "\u2014"),
        NOTE.replace("\n", "\r\n"),
        NOTE.replace(ORIGIN, "example.com/log", 1),
        NOTE.replace("control-plane.example", "control+plane"),
        NOTE.replace("control-plane.example ", ""),
        NOTE.replace("=\n\n", "\n\n"),
        SIGNED.body + "\n",
        SIGNED.body + "\n\u2014 a YQ==\n",
        Checkpoint(ORIGIN, 3, bytes(31), SIGNED.signatures).note(),
        Checkpoint(ORIGIN, 3, bytes(32), SIGNED.signatures * 17).note(),
        Checkpoint(ORIGIN, 3, bytes(32), (NoteSignature("a", bytes(4), bytes(63)),)).note(),
        "x" * 20_000,
    ],
)
def test_another_way_to_write_it_is_refused(note: str) -> None:
    assert note != NOTE
    with pytest.raises(BadCheckpoint):
        parse_checkpoint(note)


def test_an_empty_log_has_a_checkpoint_too() -> None:
    empty = sign_checkpoint("apl_1", Frontier(), KEY)
    assert parse_checkpoint(empty.note()).root == EMPTY_ROOT


def test_any_key_of_the_site_that_is_not_revoked_may_have_signed() -> None:
    old, new = KnownKey(KEY.public, until=(1, 5)), KnownKey(WITNESS.public, since=(1, 5))
    site = KnownSite(SITE.appliance_id, (old, new))
    raw = SIGNED.note().encode()
    assert open_checkpoint(raw, site) == SIGNED
    refused = (
        replace(site, keys=(replace(old, revoked=(1, 1)), new)),
        replace(site, keys=(new,)),
        replace(site, appliance_id="apl_other"),
    )
    for other in refused:
        with pytest.raises(BadCheckpoint):
            open_checkpoint(raw, other)
    with pytest.raises(BadCheckpoint, match="no text"):
        open_checkpoint(b"\xff", site)
