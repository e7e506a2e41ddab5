"""The terminal: whatever bytes it sends, the console stays, and none is a key by mistake. What is
sent to it is what differs from what stands there.

Textual's own driver ends the app at a byte that is no UTF-8 and at a sequence whose number is
beyond all characters; a serial line with noise sends both. And it takes what it does not know, also
in the middle of a paste, for keys: a pasted line of a coloured log would be typed, its capitals
with it. So a paste is put together here, and a sequence that means nothing is left out.
"""

from __future__ import annotations

import codecs
import logging
import os
import re
import select
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

from textual import events
from textual._xterm_parser import XTermParser
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

from console.painting import Painting

log = logging.getLogger(__name__)

_READ_BYTES: Final = 4_096
_LOOK_S: Final = 0.1
_BEGIN: Final = "\x1b[200~"  # of a paste
_END: Final = "\x1b[201~"
_PASTE_CHARS_MAX: Final = 1_000_000
# A paste comes without a pause; one that stops without its end, as by noise, ends so.
_PASTE_SILENT_S: Final = 1.0
# ECMA-48: control sequences; and strings, as answers of terminals. `ESC [ [ A` is F1 of the Linux
# console, so `[` ends none.
_SEQUENCE: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-Z\\-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"
)
# So long after its size changed a terminal may still arrange what stands on it.
_SETTLED_S: Final = 1.0
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_REISSUED: Final = "circumflex_accent"  # how Textual types an ESC that begins nothing it knows


class Typed:
    """Bytes in, events out. What is no character comes as U+FFFD."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._parser = XTermParser()
        self._tail = ""  # the last that was given to the parser: a paste may begin in it
        self._paste: str | None = None  # what came of one that did not end yet
        self._heard_s = 0.0

    def take(self, piece: bytes) -> Iterator[Message]:
        self._heard_s = self._now_s()
        text = self._decode(piece)
        while text:
            if self._paste is not None:
                pasted, end, text = (self._paste + text).partition(_END)
                if end:
                    yield self._pasted(pasted)
                else:
                    kept, beyond = pasted[:_PASTE_CHARS_MAX], pasted[_PASTE_CHARS_MAX:]
                    self._paste = kept + beyond[-len(_END) :]
            else:
                text = yield from self._until_paste(text)

    def tick(self) -> Iterator[Message]:
        """What is now known to be all that comes: a lone ESC is the key, after a while."""
        if self._paste is None:
            yield from self._parser.tick()
        elif self._now_s() - self._heard_s > _PASTE_SILENT_S:
            yield self._pasted(self._paste)

    def _pasted(self, text: str) -> events.Paste:
        """Its lines, without what only a terminal understands."""
        self._paste = None
        plain = _SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
        return events.Paste(_CONTROLS.sub("", plain)[:_PASTE_CHARS_MAX])

    def _until_paste(self, text: str) -> Generator[Message, None, str]:
        """Returns what comes behind the beginning of one."""
        whole = self._tail + text
        at = whole.find(_BEGIN)
        if at < 0:
            self._tail = whole[-(len(_BEGIN) - 1) :]
            yield from self._plain(text)
            return ""
        if at >= len(self._tail):
            yield from self._plain(whole[len(self._tail) : at])
        else:
            self._parser = self._fresh()  # it holds the first part of that beginning
        self._tail, self._paste = "", ""
        return whole[at + len(_BEGIN) :]

    def _plain(self, text: str) -> Iterator[Message]:
        at = 0
        for match in _SEQUENCE.finditer(text):
            yield from self._feed(text[at : match.start()])
            if self._means_something(match[0]):
                yield from self._feed(match[0])
            at = match.end()
        yield from self._feed(text[at:])

    def _means_something(self, sequence: str) -> bool:
        try:
            made = list(self._fresh().feed(sequence))
        except (ValueError, OverflowError) as error:
            log.debug("the terminal sent what is no key", extra={"why": type(error).__name__})
            return False
        return bool(made) and getattr(made[0], "key", "") != _REISSUED

    def _feed(self, text: str) -> Iterator[Message]:
        if text:  # the parser takes nothing for the end of all
            yield from self._parser.feed(text)

    def _fresh(self) -> XTermParser:
        """Another parser of the same terminal: how large it is, and how it tells of its mouse."""
        made, old = XTermParser(), self._parser
        made.last_x, made.last_y, made.mouse_pixels = old.last_x, old.last_y, old.mouse_pixels
        made.terminal_size = old.terminal_size
        made.terminal_pixel_size = old.terminal_pixel_size
        return made


class Terminal(LinuxDriver):
    """Reads its input by `Typed`, paints by `Painting`; all else is Textual's."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._painting = Painting()
        self._columns_and_lines = (0, 0)
        self._sized_s = 0.0

    def write(self, data: str) -> None:
        """Only what differs. Not while its size changes: who knows what a terminal made of that."""
        size, now_s = self._get_terminal_size(), time.monotonic()
        if size != self._columns_and_lines:
            self._sized_s = now_s if any(self._columns_and_lines) else -_SETTLED_S
            self._columns_and_lines = size
        if now_s - self._sized_s < _SETTLED_S:
            self._painting.forget()
        super().write(self._painting.changed(data, size))

    def process_message(self, message: Message) -> None:
        """^L paints all again, where another program wrote over it."""
        if isinstance(message, events.Key) and message.key == "ctrl+l":
            self._painting.forget()
            self._app.call_later(self._app.refresh)
            return
        super().process_message(message)

    def run_input_thread(self) -> None:
        """In a thread of its own, until `exit_event`."""
        typed = Typed()
        while not self.exit_event.is_set():
            readable, _, _ = select.select([self.fileno], [], [], _LOOK_S)
            if readable:
                piece = self._read()
                if not piece:  # it hung up: who watches for that ends the app
                    self.exit_event.wait(_LOOK_S)
                for message in typed.take(piece):
                    self.process_message(message)
            for message in typed.tick():
                self.process_message(message)

    def _read(self) -> bytes:
        try:
            return os.read(self.fileno, _READ_BYTES)
        except OSError:
            return b""


def driver_for(usual: type[Driver]) -> type[Driver]:
    """`usual` is what Textual chose: on a terminal it is read here, elsewhere as it is."""
    return Terminal if usual is LinuxDriver else usual
