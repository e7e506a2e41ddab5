"""Deployments: a model, an engine, settings and replicas. The name is what clients ask for."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from appliance.domain.ids import DeploymentId, ModelId
from appliance.domain.usage import Operation


class Engine(StrEnum):
    LLAMACPP = "llamacpp"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class DeploymentRow:
    id: DeploymentId
    name: str
    engine: Engine
    model_id: ModelId | None  # None: external
    model_name: str  # "": external
    model_path: str  # "": external
    model_digest: str  # "": external
    url: str | None  # external only
    has_api_key: bool
    upstream_model: str | None
    replicas: int  # wanted
    parallel: int  # requests one replica works on at once
    context_tokens: int | None  # of one request; None: what the model was trained for
    embedding: bool
    operations: frozenset[Operation]
    region: str
    suspended: bool
    generation: int  # rises with every change that needs a new process or a new connection
    created_at_ns: int


class Deployments:
    """`ref` is an id or a name."""

    async def create(
        self,
        actor: str,
        name: str,
        engine: Engine,
        *,
        model: str | None = None,
        url: str | None = None,
        api_key: str | None = None,
        upstream_model: str | None = None,
        replicas: int = 1,
        parallel: int = 4,
        context_tokens: int | None = None,
        embedding: bool = False,
        operations: Iterable[Operation] | None = None,
        region: str | None = None,
    ) -> DeploymentRow:
        """`model` is a registered model's id or name (llamacpp); `url` is for external only.

        `operations` None: what the engine is known to have. `region` None: the site's.
        """
        raise NotImplementedError

    async def list(self) -> list[DeploymentRow]:
        """By name."""
        raise NotImplementedError

    async def get(self, ref: str) -> DeploymentRow:
        raise NotImplementedError

    async def api_key(self, ref: str) -> str | None:
        """The unsealed API key of an external engine, for the fleet alone."""
        raise NotImplementedError

    async def update(
        self,
        actor: str,
        ref: str,
        *,
        replicas: int | None = None,
        parallel: int | None = None,
        context_tokens: int | None = None,
        url: str | None = None,
        api_key: str | None = None,
        upstream_model: str | None = None,
        operations: Iterable[Operation] | None = None,
    ) -> DeploymentRow:
        """None leaves a field as it is; "" takes `api_key` or `upstream_model` away."""
        raise NotImplementedError

    async def suspend(self, actor: str, ref: str) -> DeploymentRow:
        """Its replicas stop; clients are told it is not there."""
        raise NotImplementedError

    async def resume(self, actor: str, ref: str) -> DeploymentRow:
        raise NotImplementedError

    async def delete(self, actor: str, ref: str) -> None:
        raise NotImplementedError
