"""The two names of a model whose engine calls it something else than its clients do."""

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Naming:
    """`engine` in requests to the engine, `client` in answers from it."""

    client: str
    engine: str

    def for_client(self, data: bytes) -> bytes:
        """JSON with the engine's name of the model replaced by the client's.

        A quote inside a JSON string is escaped, so these bytes stand only where a member `model`
        has this value, never in a text that talks of one.
        """
        engine = msgspec.json.encode(self.engine)
        client = msgspec.json.encode(self.client)
        return data.replace(b'"model":' + engine, b'"model":' + client).replace(
            b'"model": ' + engine, b'"model": ' + client
        )
