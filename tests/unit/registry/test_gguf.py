"""Headers of model files: real ones are read, cut and hostile ones are refused without harm."""

import contextlib
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.registry.gguf import NotGGUF, read_header
from tests.fakes.tiny_gguf import CONTEXT_TOKENS, write_tiny_gguf


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def head(pairs: int, tensors: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def text_pair(key: str, value: str) -> bytes:
    return string(key) + struct.pack("<I", 8) + string(value)


def number_pair(key: str, value: int) -> bytes:
    return string(key) + struct.pack("<II", 4, value)


def array_pair(key: str, kind: int, count: int, content: bytes = b"") -> bytes:
    return string(key) + struct.pack("<IIQ", 9, kind, count) + content


ARCHITECTURE = text_pair("general.architecture", "llama")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


def test_a_real_model_is_read(tiny: Path) -> None:
    header = read_header(tiny)
    assert header.architecture == "llama"
    assert header.context_tokens == CONTEXT_TOKENS
    assert header.split_count == 1


def test_an_embedding_model_is_read(tmp_path: Path) -> None:
    assert read_header(write_tiny_gguf(tmp_path / "e.gguf", embedding=True)).context_tokens


def test_a_file_cut_anywhere_in_its_header_is_refused(tiny: Path, tmp_path: Path) -> None:
    whole = tiny.read_bytes()
    cut = tmp_path / "cut.gguf"
    step = max(1, len(whole) // 97)
    for length in [*range(60), *range(60, len(whole) // 2, step)]:
        cut.write_bytes(whole[:length])
        with pytest.raises(NotGGUF):
            read_header(cut)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not begin"),
        (b"GG", "does not begin"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "does not begin"),
        (head(0, version=1), "version 1"),
        (head(0, version=0x03000000), "version"),  # big-endian
        (head(2**63), "beyond reason"),
        (head(0, tensors=2**63), "beyond reason"),
        (head(1), "ends in the middle"),
        (head(1) + struct.pack("<Q", 2**63), "ends in the middle"),
        (head(1) + struct.pack("<Q", 2**64 - 1), "ends in the middle"),
        (head(0), "architecture"),
        (head(1) + text_pair("general.architecture", ""), "architecture"),
        (head(1) + number_pair("general.architecture", 7), "architecture"),
        (head(1) + string("k") + struct.pack("<I", 99), "unknown type 99"),
        (head(1) + array_pair("k", 99, 5), "unknown type 99"),
        (head(1) + array_pair("k", 4, 2**62), "ends in the middle"),
        (head(1) + array_pair("k", 8, 1_000), "ends in the middle"),
        (head(1) + array_pair("k", 8, 2**62), "longer than any"),
        (head(1) + array_pair("k", 9, 2**62), "longer than any"),
        (head(1) + array_pair("k", 9, 1, struct.pack("<IQ", 9, 1) * 20), "nested"),
        (head(1, tensors=1) + ARCHITECTURE + string("t") + struct.pack("<I", 2**31), "dimensions"),
        (
            head(1, tensors=1)
            + ARCHITECTURE
            + string("t")
            + struct.pack("<IQIQ", 1, 8, 0, 1 << 40),
            "cut off",
        ),
    ],
)
def test_what_is_refused_and_why(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(NotGGUF, match=says):
        read_header(path)


def test_long_and_odd_values_are_skipped_or_kept_harmless(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(
        head(5)
        + ARCHITECTURE
        + text_pair("tokenizer.chat_template", "x" * 1_000_000)
        + string("general.name")
        + struct.pack("<IQ", 8, 3)
        + b"\xff\xfe\xfd"  # not UTF-8
        + array_pair("tokenizer.tokens", 8, 3, string("a") * 3)
        + number_pair("llama.context_length", 8_192)
    )
    header = read_header(path)
    assert header.context_tokens == 8_192
    assert header.name == "\ufffd" * 3


def test_one_part_of_a_split_model_says_so(tmp_path: Path) -> None:
    path = tmp_path / "part.gguf"
    path.write_bytes(head(2) + ARCHITECTURE + number_pair("split.count", 3))
    assert read_header(path).split_count == 3


@pytest.mark.parametrize("kind", [0, 8, 9])  # bytes, strings (here empty), lists (here empty)
def test_a_hostile_header_costs_little(tmp_path: Path, kind: int) -> None:
    """A list that claims the rest of a large, sparse file: neither memory nor minutes."""
    path = tmp_path / "sparse.gguf"
    with path.open("wb") as file:
        file.write(head(1) + array_pair("k", kind, 2**33 // (12 if kind else 1)))
        file.truncate(2**33 + 1_000)
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(NotGGUF):
        read_header(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.perf_counter() - began < 5
    assert peak_bytes < 1_000_000


def test_pairs_that_nobody_asks_for_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "pairs.gguf"
    path.write_bytes(head(500) + b"".join(text_pair(f"k{n}", "x" * 60_000) for n in range(500)))
    tracemalloc.start()
    with pytest.raises(NotGGUF, match="architecture"):
        read_header(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


@given(noise=st.binary(max_size=300), pairs=st.integers(0, 5), tensors=st.integers(0, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_is_refused_or_read_but_never_worse(
    tmp_path: Path, noise: bytes, pairs: int, tensors: int
) -> None:
    path = tmp_path / "noise.gguf"
    path.write_bytes(head(pairs, tensors) + noise)
    with contextlib.suppress(NotGGUF):
        assert read_header(path).architecture
