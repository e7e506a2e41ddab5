"""The idle lock: a terminal that was left shows and does nothing until a passphrase is typed.

It is of one console and chosen at its start; only a hash of it is kept, in memory.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from console.widgets.dialogs import Dialog

if TYPE_CHECKING:
    from console.app import ConsoleApp

# Each wrong passphrase in a row doubles the wait before the next is looked at, up to this.
_WAIT_S_MAX: Final = 30.0
_PASSPHRASE_CHARS_MIN: Final = 4


class Lock:
    """When to lock and what opens it. `after_s` None: only when it is asked for."""

    def __init__(
        self,
        after_s: float | None = None,
        passphrase: str = "",
        *,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.after_s = after_s
        self._salt = entropy(16)
        self._hash = b""
        self._heard_s: float | None = None
        self._wrong = 0
        self._shut_until_s = 0.0
        if passphrase:
            self.choose(passphrase)

    @property
    def ready(self) -> bool:
        """Whether there is a passphrase: without one nothing could open it again."""
        return bool(self._hash)

    def choose(self, passphrase: str) -> None:
        self._hash = self._hashed(passphrase)

    def heard(self, now_s: float) -> None:
        """Somebody pressed a key."""
        self._heard_s = now_s

    def due(self, now_s: float) -> bool:
        if self._heard_s is None:
            self._heard_s = now_s
        return self.ready and self.after_s is not None and now_s - self._heard_s >= self.after_s

    def opens(self, passphrase: str, now_s: float) -> bool:
        """Whether it is the one. While it waits after wrong ones, none is."""
        if now_s < self._shut_until_s:
            return False
        if hmac.compare_digest(self._hashed(passphrase), self._hash):
            self._wrong = 0
            return True
        self._wrong += 1
        self._shut_until_s = now_s + min(_WAIT_S_MAX, 2.0 ** (self._wrong - 1))
        return False

    def wait_s(self, now_s: float) -> float:
        return max(0.0, self._shut_until_s - now_s)

    def _hashed(self, passphrase: str) -> bytes:
        # 16 MiB and about 50 ms: enough for what never leaves the memory of one process.
        return hashlib.scrypt(passphrase.encode(), salt=self._salt, n=2**14, r=8, p=1)


def problem_with(passphrase: str, again: str) -> str:
    """Why it cannot be taken; "" when it can."""
    if len(passphrase) < _PASSPHRASE_CHARS_MIN:
        return f"At least {_PASSPHRASE_CHARS_MIN} characters."
    return "" if passphrase == again else "The two are not alike."


class LockScreen(ModalScreen[None]):
    """Hides everything. No key leads out of it but the passphrase."""

    DEFAULT_CSS: ClassVar[str] = """
    LockScreen { align: center middle; background: $background; }
    LockScreen Vertical { width: 60; height: auto; }
    LockScreen Input { border: none; height: 1; padding: 0; background: $panel; }
    LockScreen Input:focus { border: none; }
    """
    BINDINGS: ClassVar[list[Any]] = []

    def __init__(self, lock: Lock, monotonic_s: Callable[[], float]) -> None:
        super().__init__()
        self._lock_of = lock
        self._monotonic_s = monotonic_s
        self._open = False

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text("This console is locked. Its passphrase:"))
            yield Input(password=True, max_length=1_024)
            yield Static("", id="said")

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Input))

    @on(Input.Submitted)
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        if self._open:
            return
        line = self.query_one(Input)
        now_s = self._monotonic_s()
        if self._lock_of.opens(line.value, now_s):
            self._open = True
            self.dismiss(None)
            return
        line.value = ""
        wait_s = self._lock_of.wait_s(now_s)
        self.query_one("#said", Static).update(
            Text(f"That is not it. The next one is looked at in {wait_s:.0f} s.")
        )


class ChooseDialog(Dialog):
    """Asks for the passphrase of a console that was started without one. Its result is that."""

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text("Lock this console"), classes="title")
            yield Static(Text("Nothing is shown or done until this passphrase is typed."))
            yield Static("", classes="gap")
            for name, label in (("first", "Passphrase"), ("again", "Once more")):
                with Horizontal(classes="field"):
                    yield Static(label, classes="label")
                    yield Input(password=True, id=name, max_length=1_024)
            yield Static("", id="problem", classes="problem")
            yield Static(Text("Enter locks · Esc does not"), classes="twin")

    def opened(self) -> None:
        self.set_focus(self.query_one("#first", Input))

    @on(Input.Submitted)
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        again = self.query_one("#again", Input)
        if event.input is not again:
            again.focus()
            return
        first = self.query_one("#first", Input).value
        problem = problem_with(first, again.value)
        if problem:
            self.query_one("#problem", Static).update(Text(problem))
        else:
            self.close(first)


def lock_now(app: ConsoleApp) -> None:
    """Hide everything, once."""
    if not app.locked:
        app.push_screen(LockScreen(app.lock, app.monotonic_s), lambda _: app.lock_changed())
        app.lock_changed()
