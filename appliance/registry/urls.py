"""Base URLs of external engines."""

from typing import Final
from urllib.parse import urlsplit

from appliance.registry.errors import InvalidValue

URL_CHARS_MAX: Final = 2_048


def check_url(url: str) -> None:
    """Raise InvalidValue unless it is http or https, a host, perhaps a port and a path.

    Credentials are refused: they would lie in the registry and its audit in plain text. What was
    given is not repeated in the error for the same reason.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    sound = (
        len(url) <= URL_CHARS_MAX
        and url.isascii()
        and url.isprintable()
        and " " not in url
        and parts.scheme in {"http", "https"}
        and bool(parts.hostname)
        and port != 0
        and not parts.query
        and not parts.fragment
    )
    if not sound:
        raise InvalidValue(
            "The URL of an external engine is not acceptable.",
            next_step="Give it as http://HOST:PORT or https://HOST/PATH, without a query.",
        )
    if "@" in parts.netloc:
        raise InvalidValue(
            "The URL of an external engine must not hold a name or a password.",
            next_step="Give the secret as the API key: it is sealed there.",
        )
