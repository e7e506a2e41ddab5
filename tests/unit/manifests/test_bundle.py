"""Containers: the same bytes again, and no bit of them otherwise."""

import io
import random
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.manifests.bundle import (
    MANIFESTS_MAX,
    CarriedDocument,
    CarriedManifest,
    KeyChain,
    UsageReader,
    UsageWriter,
    read_receipts,
    write_receipts,
    write_usage,
)
from appliance.manifests.errors import BadBundle, BundleTooLarge

APPLIANCE = "apl_0123456789abcdef01234567"
KEYS = KeyChain(first_key_pem="-----BEGIN PUBLIC KEY-----\n", rotations=("{}",))
CHECKPOINT = b"log\n3\nAAAA\n\n- log AAAA\n"
MANIFESTS = (
    CarriedManifest(1, 9, b'{"payload":"a"}', b'{"line":1}\n{"line":2}\n'),
    CarriedManifest(1, 10, b'{"payload":"b"}', b""),
    CarriedManifest(2, 1, b'{"payload":"c"}', b"x" * 512),
)
DOCUMENTS = (
    CarriedDocument("receipt", b'{"payload":"r"}'),
    CarriedDocument("key-revocation", b'{"payload":"v"}'),
)


def usage() -> bytes:
    raw, count = write_usage(APPLIANCE, "north", KEYS, CHECKPOINT, MANIFESTS)
    assert count == len(MANIFESTS)
    return raw


def read_usage(raw: bytes) -> list[CarriedManifest]:
    return list(UsageReader(io.BytesIO(raw)))


def test_what_was_written_is_read() -> None:
    reader = UsageReader(io.BytesIO(usage()))
    assert (reader.index.appliance_id, reader.index.site) == (APPLIANCE, "north")
    assert (reader.index.epoch_from, reader.index.seq_from) == (1, 9)
    assert (reader.index.epoch_to, reader.index.seq_to) == (2, 1)
    assert reader.index.manifests == 3
    assert (reader.keys, reader.checkpoint) == (KEYS, CHECKPOINT)
    assert tuple(reader) == MANIFESTS
    assert read_receipts(write_receipts(APPLIANCE, DOCUMENTS)) == (APPLIANCE, DOCUMENTS)


def test_the_same_manifests_give_the_same_bytes() -> None:
    assert usage() == usage()
    assert write_receipts(APPLIANCE, DOCUMENTS) == write_receipts(APPLIANCE, DOCUMENTS)


@pytest.mark.parametrize(
    ("raw", "read"),
    [(usage(), read_usage), (write_receipts(APPLIANCE, DOCUMENTS), read_receipts)],
    ids=["usage", "receipt"],
)
def test_no_single_bit_may_change(raw: bytes, read: Callable[[bytes], object]) -> None:
    read(raw)
    passed = []
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            read(bytes(changed))
        except BadBundle:
            continue
        passed.append(bit)
    assert passed == []
