"""How the parts of a proof are made small: version 1 of its body.

    body   = length of `text` (2 bytes, big-endian) || text || pool
    text   = raw deflate, with the preset dictionary `DICTIONARY`, of the values of four groups,
             each ended by a newline: record index, records, line index, lines, lengths of runs;
             those of the record; of the line; of the header
    pool   = signature (64) || salt of the record (16) || hashes of both paths || runs

- The values of a group are what stands at `%` (a number or null) and `$` (a text, with its
  escapes) in RECORD, LINE and HEADER; filled in again, they give the bytes that were signed. Where
  bytes do not fit (fields that came later), the first value of the group is all of them.
- Hex digits do not compress: 0x01 N in a value is run N-48 of the pool, as lower-case hex, and 0x02
  the root that the part before and its path lead to (N is one character, as the lengths are: L-48).

No canonical text holds such characters, so there is only one way to read a body.
"""

import re
import zlib
from dataclasses import dataclass
from itertools import chain
from typing import Final

from appliance.manifests.errors import BadProof
from appliance.manifests.lines import SALT_BYTES
from appliance.manifests.merkle import HASH_BYTES, leaf_hash, root_from_inclusion

SIGNATURE_BYTES: Final = 64
TEXT_BYTES_MAX: Final = 65_536  # of record, line and header together
_BASE: Final = 48
_RUN: Final = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{2}){6,40}(?![0-9a-f])")
_MARK: Final = re.compile("\x01(.)|\x02", re.DOTALL)

# None of these is ever changed: old proofs are read with them.
RECORD: Final = (
    '{"v":%,"seq":%,"record_id":"$","request_id":"$","tenant_id":"$","tenant":"$",'
    '"environment_id":"$","environment":"$","key_id":"$","key":"$","model":"$","model_digest":"$",'
    '"deployment_id":"$","region":"$","operation":"$","price_class":"$","node":"$","status":"$",'
    '"http_status":%,"error_code":"$","measured":"$","prompt_estimate":%,"input_tokens":%,'
    '"output_tokens":%,"cached_tokens":%,"opened_at_ns":%,"settled_at_ns":%,"latency_ms":%,'
    '"first_token_ms":%}'
)
LINE: Final = (
    '{"tenant_id":"$","tenant":"$","environment_id":"$","environment":"$","key_id":"$","model":"$",'
    '"model_digest":"$","region":"$","price_class":"$","hour":"$","requests":"$",'
    '"input_tokens":"$","cached_tokens":"$","output_tokens":"$","records_root":"$","salt":"$"}'
)
HEADER: Final = (
    '{"schema":"$","appliance_id":"$","epoch":%,"seq":%,"prev_sha256":"$","key_id":"$",'
    '"entitlement_id":"$","software_digest":"$","event_seq_lo":%,"event_seq_hi":%,"line_count":%,'
    '"lines_root":"$","totals":{"requests":"$","input_tokens":"$","cached_tokens":"$",'
    '"output_tokens":"$"},"cumulative_totals":{"requests":"$","input_tokens":"$",'
    '"cached_tokens":"$","output_tokens":"$"},"log_size":%,"log_root":"$",'
    '"last_receipt_sha256":"$","audit_head":"$","wall":"$","watermark":"$","boot_id":"$",'
    '"mono_ns":"$","regressions":%,"engines":{"prompt_tokens":"$","generated_tokens":"$"}}'
)
DICTIONARY: Final = (
    b"aborted\n499\nclient_closed\ncounted\nfailed\nestimated\nembeddings\ncompletions\nresponses\n"
    b"messages\nUS\nIN\nAPAC\n0000000000000000000000000000000000000000000000000000000000000000\n"
    b"Qwen\nmistral\nllama\n-instruct\nsha256:\x015\nEU\nserverless\n2026-11-22T19:00:00Z\n"
    b"\n\x02\n\x017\ncrosslogic.usage-manifest.v1\napl_\x018\n1\n1\n\x019\n\x01:\nent_\x01;\n\x01<\n"
    b"\n\x02\n\n\x01=\n\x01>\n\x01?\n2026-11-22T19:00:00.000Z\n2026-11-22T19:00:00.000Z\n-4\n0\n"
    b" >><<<P<@<PP<PPPP\n1\nrec_\x010\nreq_\x011\nten_\x012\ndefault\nenv_\x013\nprod\n"
    b"key_\x014\nsha256:\x015\ndep_\x016\nEU\nchat\nserverless\nok\n200\n\nengine\n17\n17\nnull\n"
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a proof is made of; all bytes are those that were hashed and signed."""

    record: bytes  # canonical
    salt: bytes
    record_index: int
    record_count: int  # of the line
    record_path: tuple[bytes, ...]
    line: bytes  # without the newline
    line_index: int
    line_count: int
    line_path: tuple[bytes, ...]
    header: bytes  # the payload of the envelope
    signature: bytes

    def records_root(self) -> bytes:
        """Raises ValueError when the path does not fit the numbers."""
        leaf = leaf_hash(self.salt + self.record)
        return root_from_inclusion(leaf, self.record_index, self.record_count, self.record_path)

    def lines_root(self) -> bytes:
        """Raises ValueError when the path does not fit the numbers."""
        leaf = leaf_hash(self.line)
        return root_from_inclusion(leaf, self.line_index, self.line_count, self.line_path)


def pack(parts: Parts) -> bytes:
    """The body of a proof."""
    runs: list[bytes] = []
    groups = (
        _RECORD.values(_folded(parts.record, runs, None)),
        _LINE.values(_folded(parts.line, runs, parts.records_root())),
        _HEADER.values(_folded(parts.header, runs, parts.lines_root())),
    )
    lengths = "".join(chr(_BASE + len(run)) for run in runs)
    numbers = (parts.record_index, parts.record_count, parts.line_index, parts.line_count)
    text = "".join(f"{each}\n" for each in (*numbers, lengths, *chain.from_iterable(groups)))
    press = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=DICTIONARY)
    pressed = press.compress(text.encode()) + press.flush()
    pool = [parts.signature, parts.salt, *parts.record_path, *parts.line_path, *runs]
    return len(pressed).to_bytes(2, "big") + pressed + b"".join(pool)


def unpack(body: bytes) -> Parts:
    """The parts of a body, unverified. Raises BadProof."""
    try:
        return _unpacked(body)
    except (ValueError, IndexError, zlib.error) as error:
        raise BadProof(f"This is no proof: {error}.") from error


def _unpacked(body: bytes) -> Parts:
    length = int.from_bytes(body[:2], "big")
    unpress = zlib.decompressobj(-15, zdict=DICTIONARY)
    text = unpress.decompress(body[2 : 2 + length], TEXT_BYTES_MAX).decode()
    if not unpress.eof or unpress.unused_data or unpress.unconsumed_tail:
        raise ValueError("its text does not end where it should")
    *values, end = text.split("\n")
    record_index, record_count, line_index, line_count = (int(value) for value in values[:4])
    lengths, values = values[4], values[:4:-1]  # from here on the next value is the last
    pool = _Pool(body[2 + length :])
    signature, salt = pool.take(SIGNATURE_BYTES), pool.take(SALT_BYTES)
    record_path = pool.hashes(path_length(record_index, record_count))
    line_path = pool.hashes(path_length(line_index, line_count))
    runs = [pool.take(_ordinal(one)) for one in lengths]
    pool.finish()
    record = _unfolded(_RECORD.filled(values), runs, None)
    leaf = leaf_hash(salt + record)
    records_root = root_from_inclusion(leaf, record_index, record_count, record_path)
    line = _unfolded(_LINE.filled(values), runs, records_root)
    lines_root = root_from_inclusion(leaf_hash(line), line_index, line_count, line_path)
    header = _unfolded(_HEADER.filled(values), runs, lines_root)
    if values or end:
        raise ValueError("there is more than belongs to it")
    return Parts(
        record=record,
        salt=salt,
        record_index=record_index,
        record_count=record_count,
        record_path=record_path,
        line=line,
        line_index=line_index,
        line_count=line_count,
        line_path=line_path,
        header=header,
        signature=signature,
    )


def path_length(index: int, size: int) -> int:
    """How many hashes lead from a leaf to the root. Raises ValueError without such a leaf."""
    if not 0 <= index < size:
        raise ValueError("there is no such leaf")
    last, length = size - 1, 0
    while last > 0:
        length += index & 1 or index < last
        index, last = index // 2, last // 2
    return length


class _Pool:
    """The bytes that do not compress, taken one after the other."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def take(self, size: int) -> bytes:
        if size > len(self._raw):
            raise ValueError("it is cut short")
        taken, self._raw = self._raw[:size], self._raw[size:]
        return taken

    def hashes(self, count: int) -> tuple[bytes, ...]:
        return tuple(self.take(HASH_BYTES) for _ in range(count))

    def finish(self) -> None:
        if self._raw:
            raise ValueError("there is more than belongs to it")


class _Template:
    """A text with gaps: what stands in them can be taken out and be put back."""

    __slots__ = ("_fixed", "_pattern")

    def __init__(self, template: str) -> None:
        self._fixed = re.split(r"[%$]", template)
        pattern = re.escape(template).replace("%", r"([0-9]+|null)")
        self._pattern = re.compile(pattern.replace(r"\$", r'((?:[^"\\\n]|\\.)*)'))

    def values(self, text: str) -> tuple[str, ...]:
        """What stands in the gaps; the whole text where it does not fit."""
        found = self._pattern.fullmatch(text)
        if found is None or found[1].startswith("{"):
            return (text,)
        return found.groups()

    def filled(self, values: list[str]) -> str:
        """The text again; takes the values from the end of the list. Raises IndexError."""
        if values[-1].startswith("{"):
            return values.pop()
        pieces = [self._fixed[0]]
        for fixed in self._fixed[1:]:
            pieces += (values.pop(), fixed)
        return "".join(pieces)


_RECORD: Final = _Template(RECORD)
_LINE: Final = _Template(LINE)
_HEADER: Final = _Template(HEADER)


def _folded(raw: bytes, runs: list[bytes], root: bytes | None) -> str:
    """The text with its runs of hex digits taken out into `runs`."""
    root_hex = None if root is None else root.hex()

    def mark(found: re.Match[str]) -> str:
        digits = found[0]
        if digits == root_hex:
            return "\x02"
        if digits.isdecimal():  # a number, or no hash at all: those compress
            return digits
        run = bytes.fromhex(digits)
        if run not in runs:
            runs.append(run)
        return f"\x01{chr(_BASE + runs.index(run))}"

    return _RUN.sub(mark, raw.decode())


def _unfolded(text: str, runs: list[bytes], root: bytes | None) -> bytes:
    def digits(found: re.Match[str]) -> str:
        if (number := found[1]) is not None:
            return runs[_ordinal(number)].hex()
        if root is None:
            raise ValueError("it refers to a root that is not there")
        return root.hex()

    return _MARK.sub(digits, text).encode()


def _ordinal(character: str) -> int:
    if ord(character) < _BASE:
        raise ValueError("it counts below nothing")
    return ord(character) - _BASE
