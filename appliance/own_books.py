"""The books of a running site as the endpoint shows them to their owners."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from appliance.domain.errors import CrossLogicError
from appliance.domain.ids import KeyId, TenantId
from appliance.gateway.errors import LedgerDown, NotSealedYet, UsageNotFound
from appliance.metering.reader import KeyUsage, LedgerReader
from appliance.sync.proofs import Proofs

R = TypeVar("R")

# Readers at once: whoever asks often waits, and leaves the disk and the processor to requests.
_USAGE_MAX: Final = 2
_PROOFS_MAX: Final = 1
_NOT_FOUND: Final = "no_such_record"
_NOT_SEALED: Final = "not_sealed_yet"


class OwnBooks:
    """The gateway's port of that name. Reads in threads."""

    def __init__(self, reader: LedgerReader, proofs: Proofs, *, window_s: float) -> None:
        """`window_s`: after it, at the latest, what is open now is sealed."""
        self._reader = reader
        self._proofs = proofs
        self._window_s = window_s
        self._usage_turn = asyncio.Semaphore(_USAGE_MAX)
        self._proof_turn = asyncio.Semaphore(_PROOFS_MAX)

    async def usage(self, key_id: KeyId, day_ns: int, month_ns: int) -> Sequence[KeyUsage]:
        async with self._usage_turn:
            return await self._read(lambda: self._reader.key_usage(key_id, day_ns, month_ns))

    async def proof(self, tenant_id: TenantId, ref: str) -> bytes:
        async with self._proof_turn:
            made = await self._read(lambda: self._proofs.prove(ref, tenant_id))
        return bytes(made.proof)

    async def _read(self, run: Callable[[], R]) -> R:
        try:
            return await asyncio.to_thread(run)
        except CrossLogicError as error:
            if error.code == _NOT_FOUND:
                raise UsageNotFound("There is no record of that id.") from error
            if error.code == _NOT_SEALED:
                raise NotSealedYet(
                    "That request is recorded, and its window is not sealed yet.",
                    retry_after_s=max(1, int(self._window_s)),
                ) from error
            raise LedgerDown("The books cannot be read at the moment.", retry_after_s=5) from error
