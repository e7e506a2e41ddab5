"""Nodes: machines whose agents run engines. Whether one is alive is the fleet's knowledge."""

from dataclasses import dataclass

from appliance.domain.ids import NodeId


@dataclass(frozen=True, slots=True)
class NodeRow:
    id: NodeId
    name: str
    region: str
    suspended: bool  # takes no replicas
    created_at_ns: int


class Nodes:
    """`ref` is an id or a name."""

    async def create(self, actor: str, name: str, *, region: str | None = None) -> NodeRow:
        """`region` None: the site's."""
        raise NotImplementedError

    async def ensure(self, actor: str, name: str) -> NodeRow:
        """The node of that name, registered in the site's region if it is not known yet."""
        raise NotImplementedError

    async def list(self) -> list[NodeRow]:
        """By name."""
        raise NotImplementedError

    async def get(self, ref: str) -> NodeRow:
        raise NotImplementedError

    async def update(
        self, actor: str, ref: str, *, name: str | None = None, region: str | None = None
    ) -> NodeRow:
        raise NotImplementedError

    async def suspend(self, actor: str, ref: str) -> NodeRow:
        raise NotImplementedError

    async def resume(self, actor: str, ref: str) -> NodeRow:
        raise NotImplementedError

    async def delete(self, actor: str, ref: str) -> None:
        """Its replicas are placed on no node."""
        raise NotImplementedError
