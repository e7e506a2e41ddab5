"""Answers that come piece by piece: objects one a line, and events for as long as they happen."""

import logging
from collections.abc import AsyncGenerator
from typing import Final

import msgspec
from aiohttp import web

from appliance.admin.calls import Events, Lines
from appliance.domain.errors import CrossLogicError

log = logging.getLogger(__name__)

_LINES: Final = "application/x-ndjson"
# Lines are written in pieces of about this size.
_PIECE_BYTES: Final = 64 * 1024


async def send_lines(request: web.Request, lines: Lines) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": _LINES})
    piece = bytearray()
    try:
        async for item in lines.objects:
            piece += msgspec.json.encode(item) + b"\n"
            if len(piece) >= _PIECE_BYTES:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(bytes(piece))
                piece.clear()
    except CrossLogicError as error:
        if not response.prepared or request.transport is None:
            raise
        # The head is out: only a connection that breaks tells the reader that lines are missing.
        log.warning("admin answer broken off", extra={"path": request.path, "code": error.code})
        request.transport.abort()
        return response
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof(bytes(piece))
    return response


async def send_events(request: web.Request, events: Events) -> web.StreamResponse:
    """Each piece is written as it comes. The first one comes before the head: it may be refused."""
    response = web.StreamResponse(
        headers={"Content-Type": events.content_type, "Cache-Control": "no-store"}
    )
    try:
        async for piece in events.pieces:
            if not response.prepared:
                await response.prepare(request)
            await response.write(piece)
    finally:  # also when the reader leaves: what makes them lets go of what it holds now
        if isinstance(events.pieces, AsyncGenerator):
            await events.pieces.aclose()
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response
