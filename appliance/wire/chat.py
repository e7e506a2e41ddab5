"""A pass to the endpoint for an administrator: a key of the site's own tenant that soon ends."""

from appliance.wire.admin_message import Message


class ChatPassAsk(Message, frozen=True):
    model: str  # the deployment's name, as clients write it


class ChatPass(Message, frozen=True):
    """`key` is for the endpoint at `endpoint`, as anybody's. It is told this once."""

    id: str
    key: str
    endpoint: str  # base URL
    tenant: str
    environment: str
    expires_at: str
