"""The one field the gateway needs of a multipart form (RFC 7578): which model it is for."""

import re
from typing import Final

from appliance.gateway.errors import BadRequest
from appliance.gateway.request import Ask

_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.I)
_NAME: Final = re.compile(rb'(?:^|;)\s*name="([^"\r\n]*)"', re.I)
_PARTS_MAX: Final = 64
_VALUE_BYTES_MAX: Final = 256


def parse(body: bytes, content_type: str) -> Ask:
    """Read a form. Raises BadRequest when it is none, or names no model or two."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise BadRequest("The form's content type has no boundary.")
    mark = b"--" + (found[1] or found[2]).encode("utf-8", "replace")
    first, *parts = body.split(b"\r\n" + mark if body.startswith(b"\r\n") else mark)
    if not parts or first.strip() or not parts[-1].startswith(b"--") or len(parts) > _PARTS_MAX:
        raise BadRequest("The body is not a form as its content type says.")
    values: dict[str, bytes] = {}
    for part in parts[:-1]:
        head, blank, value = part.partition(b"\r\n\r\n")
        name = _field_name(head)
        if not blank or not value.endswith(b"\r\n"):
            raise BadRequest("The body is not a form as its content type says.")
        if name in {"model", "stream"}:
            if name in values or len(value) > _VALUE_BYTES_MAX:
                raise BadRequest(f"The form's field '{name}' is not valid.", param=name)
            values[name] = value[:-2]
    model = values.get("model", b"").decode("utf-8", "replace")
    if not model:
        raise BadRequest("You must say which model to use.", param="model")
    if values.get("stream", b"false").lower() not in {b"false", b"0"}:
        raise BadRequest("Transcriptions are not streamed here.", param="stream")
    return Ask(
        model=model,
        stream=False,
        output_tokens=None,
        choices=1,
        usage_asked=False,
        usage_on_every=False,
        options_given=False,
        reserved_given=False,
        input_bytes=len(body),
    )


def _field_name(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            found = _NAME.search(value)
            return "" if found is None else found[1].decode("utf-8", "replace")
    return ""
