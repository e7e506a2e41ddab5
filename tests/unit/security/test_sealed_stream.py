"""An encrypted stream: what was put in comes out, and nothing else opens."""

import io
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.security import sealed_stream
from appliance.security.errors import SealBroken
from appliance.security.sealed_stream import decrypt, encrypt, key_of_passphrase, key_of_secret

KEY, HEAD, PREFIX = b"k" * 32, b'{"head": 1}', b"prefix!"


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_stream, "PIECE_BYTES", 8)


def sealed(pieces: list[bytes]) -> bytes:
    return b"".join(encrypt(KEY, HEAD, PREFIX, iter(pieces)))


def opened(content: bytes, key: bytes = KEY, head: bytes = HEAD) -> bytes:
    return b"".join(decrypt(key, head, PREFIX, io.BytesIO(content)))


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_what_was_put_in_comes_out(pieces: list[bytes]) -> None:
    assert opened(sealed(pieces)) == b"".join(pieces)


def changes(content: bytes) -> Iterator[bytes]:
    for at in range(len(content)):
        yield content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        yield content[:at]
    yield content + b"x"
    piece = 8 + 16
    yield content[piece : 2 * piece] + content[:piece] + content[2 * piece :]
    yield content[:piece] + content[2 * piece :]
    yield content[:piece] * 2 + content[piece:]


def test_every_changed_cut_moved_or_appended_byte_is_refused() -> None:
    content = sealed([b"twenty-nine bytes of content."])
    for changed in changes(content):
        with pytest.raises(SealBroken):
            opened(changed)


def test_another_key_and_another_head_do_not_open_it() -> None:
    content = sealed([b"content"])
    with pytest.raises(SealBroken):
        opened(content, key=b"x" * 32)
    with pytest.raises(SealBroken):
        opened(content, head=b'{"head": 2}')


@settings(max_examples=20)
@given(st.text(min_size=1, max_size=20), st.binary(min_size=32, max_size=32))
def test_keys_follow_from_what_is_remembered_and_the_salt(phrase: str, salt: bytes) -> None:
    key = key_of_passphrase(phrase, salt, n=2)
    assert key == key_of_passphrase(phrase, salt, n=2)
    assert key != key_of_passphrase(phrase + "!", salt, n=2)
    assert key_of_secret(b"s" * 32, salt) != key_of_secret(b"s" * 32, salt[::-1] + b"x")
