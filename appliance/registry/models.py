"""Models: named weights on this site, known by the SHA-256 of their file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance.domain.ids import ModelId

# Bytes read so far and in all. Called from another thread than the event loop's.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ModelRow:
    id: ModelId
    name: str
    path: str
    digest: str  # "sha256:<hex>"
    size_bytes: int
    family: str
    licence: str
    architecture: str  # from the file: "llama", "bert", …
    context_tokens: int | None  # the model was trained for; None: the file does not say
    suspended: bool
    created_at_ns: int


class Models:
    """`ref` is an id or a name."""

    async def register(
        self,
        actor: str,
        name: str | None,
        path: Path,
        *,
        family: str = "",
        licence: str = "",
        progress: Progress | None = None,
    ) -> ModelRow:
        """Read and hash the GGUF file, off the event loop, and register it.

        `name` None: the file's name without `.gguf`; a model of that name with the same path
        and digest is returned as it is. Raises ModelUnreadable, InvalidValue, AlreadyExists.
        """
        raise NotImplementedError

    async def list(self) -> list[ModelRow]:
        """By name."""
        raise NotImplementedError

    async def get(self, ref: str) -> ModelRow:
        raise NotImplementedError

    async def update(
        self,
        actor: str,
        ref: str,
        *,
        name: str | None = None,
        family: str | None = None,
        licence: str | None = None,
    ) -> ModelRow:
        """None leaves a field as it is."""
        raise NotImplementedError

    async def suspend(self, actor: str, ref: str) -> ModelRow:
        """Suspends its deployments for clients as well."""
        raise NotImplementedError

    async def resume(self, actor: str, ref: str) -> ModelRow:
        raise NotImplementedError

    async def delete(self, actor: str, ref: str) -> None:
        """Forgets the model; its file stays. Raises InUse while a living deployment has it."""
        raise NotImplementedError
