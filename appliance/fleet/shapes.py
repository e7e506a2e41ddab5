"""What of each model takes memory, read from the heads of its files: off the event loop, once."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from appliance.fleet.estimate import Shape
from appliance.registry.errors import RegistryError
from appliance.registry.generations import Generation
from appliance.registry.weights import look_at

log = logging.getLogger(__name__)

_READ_S: Final = 30.0  # of a head; a share that hangs shall not hold the fleet


class Shapes:
    """By a model's digest. What cannot be read now is tried again with the next change."""

    __slots__ = ("_known", "_read")

    def __init__(self, read: Callable[[Generation], Shape] | None = None) -> None:
        self._read = read or read_shape
        self._known: dict[str, Shape] = {}

    async def of(self, generations: Iterable[Generation]) -> Mapping[str, Shape]:
        """The shapes of their models, as far as their files tell."""
        wanted = {g.model_digest: g for g in generations}
        for digest, generation in wanted.items():
            if digest in self._known:
                continue
            try:
                async with asyncio.timeout(_READ_S):
                    self._known[digest] = await asyncio.to_thread(self._read, generation)
            except (RegistryError, OSError, TimeoutError) as error:
                extra = {"model_path": generation.model_path, "why": str(error)}
                log.warning("a model's memory is not known", extra=extra)
        self._known = {digest: s for digest, s in self._known.items() if digest in wanted}
        return self._known


def read_shape(generation: Generation) -> Shape:
    """Blocks. Raises ModelUnreadable, OSError."""
    header = look_at(Path(generation.model_path)).header
    return Shape(
        generation.model_size_bytes,
        header.layers,
        header.kv_heads,
        header.key_length,
        header.value_length,
    )
