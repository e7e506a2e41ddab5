"""The console: a frame of header, modes and footer around the views, and one live subscription."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.filter import LineFilter
from textual.message_pump import MessagePump
from textual.widgets import Static

from appliance.wire.access import AccessRole, Me
from appliance.wire.home import Home
from appliance.wire.stream import Tick, Topic
from console.actions import permitted
from console.children import Children
from console.client import Admin, AdminError
from console.commands import Commands
from console.deeds import Deeds
from console.export import as_text, write_out
from console.hang_up import HangUp
from console.header import account, footer_hints, header, mode_bar, running, standing, width_of
from console.keys import KeyOrder
from console.lock import Lock, LockScreen, lock_now
from console.modes import ALERTS_MODE, MODES
from console.plain import line_filters
from console.profile import COLUMNS_MIN, LINES_MIN, Profile
from console.store import Changes, Store
from console.stream import Feed
from console.tasks import Tasks
from console.themes import DEFAULT, LOOKS
from console.view import Reading, View, forget_what_is_gone
from console.widgets.dialogs import TextDialog
from console.widgets.line import FrameLine

# Of every view: the header and the attention it draws.
_ALWAYS: Final[frozenset[Topic]] = frozenset({"site", "alerts", "sync"})


class ConsoleApp(App[int], inherit_bindings=False):
    """`start`: the digit of the first mode. `read_only`: nothing may be changed from here."""

    CSS: ClassVar[str] = """
    Screen { layout: vertical; overflow: hidden; }
    #room { height: 1fr; }
    #small { height: 1fr; display: none; }
    Toast { padding: 0 1; margin: 0; width: 60; max-width: 100%; }
    """
    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False  # `y` copies; a click on what just went would end it
    BINDINGS: ClassVar[list[Any]] = [
        *(Binding(mode.digit, f"mode('{mode.digit}')", mode.title) for mode in MODES),
        Binding("escape", "back", "Back"),
        Binding("colon", "palette", "Commands"),
        Binding("question_mark,f1", "help", "Help", key_display="?"),
        Binding("exclamation_mark", "alerts", "Alerts", key_display="!"),
        Binding("p", "pause", "Pause"),
        Binding("y", "copy", "Copy"),
        Binding("w", "write", "Write to a file"),
        Binding("q,ctrl+c", "leave", "Quit", key_display="q"),
        Binding("tab", "focus_next", show=False),
        Binding("shift+tab", "focus_previous", show=False),
    ]

    def __init__(
        self,
        home: Home,
        profile: Profile,
        *,
        read_only: bool = False,
        look: str = DEFAULT,
        start: str = "1",
        lock: Lock | None = None,
        notice: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.look = look  # read while the base class paints
        super().__init__(ansi_color=profile.colours in ("none", "16"))
        self.profile = profile
        self.home = home
        self.read_only = read_only
        self.now = now
        self.store = Store()
        self.admin = Admin(home.admin_socket)
        self.tasks = Tasks()
        self.deeds = Deeds(self, Children(home), self.tasks)
        self.commands = Commands()
        self.me: Me | None = None
        self.paused = False
        self.trouble: AdminError | None = None
        self.lock = lock or Lock()
        self._start = start
        self._notice = notice
        self._monotonic_ns = monotonic_ns
        self._hang_up = HangUp()
        self._keys = KeyOrder(super().on_event, self._way_of_keys, self.monotonic_s)
        self._stacks: dict[str, list[View]] = {}
        self._mode = start
        self.feed = Feed(
            self.admin,
            every_s=profile.refresh_s,
            on_begin=self._connected,
            on_tick=self._tick,
            on_loss=self._lost,
        )
        for each in LOOKS.values():
            self.register_theme(each.theme)
        self.theme = LOOKS[look].theme.name

    # The frame.

    def compose(self) -> ComposeResult:
        yield FrameLine(name="header")
        yield FrameLine(name="modes")
        yield Container(id="room")
        yield Static(
            f"The console needs {COLUMNS_MIN} columns and {LINES_MIN} lines.\n"
            "Make the terminal larger, or use `cic top`.",
            id="small",
        )
        yield FrameLine(name="footer")

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), *line_filters(ascii_only=self.profile.ascii)]

    async def on_mount(self) -> None:
        self._hang_up.watch(self)
        self.set_interval(1.0, self._each_second)
        await self.go(self._start)
        if self._notice:
            self.notify(self._notice, severity="warning", timeout=8)
        self.run_worker(self.feed.run(), name="feed", exit_on_error=True)

    async def on_unmount(self) -> None:
        await self.admin.close()

    def on_resize(self, event: events.Resize) -> None:
        fits = event.size.width >= COLUMNS_MIN and event.size.height >= LINES_MIN
        if self.screen_stack:
            root = self.screen_stack[0]
            for room in root.query("#room"):
                room.display = fits
            for small in root.query("#small"):
                small.display = not fits
            self.call_after_refresh(self.refresh_footer)

    def line(self, name: str) -> FrameLine | None:
        for line in self.screen_stack[0].query(FrameLine) if self.screen_stack else ():
            if line.name == name:
                return line
        return None

    # Modes and their stacks of views.

    @property
    def top(self) -> View | None:
        """The view that is looked at."""
        stack = self._stacks.get(self._mode)
        return stack[-1] if stack else None

    @property
    def mode(self) -> str:
        """The digit of the mode that is looked at."""
        return self._mode

    async def go(self, digit: str) -> None:
        """Look at a mode: its stack of views as it was left."""
        mode = next((each for each in MODES if each.digit == digit), None)
        if mode is None:
            return
        self._mode = digit
        if digit not in self._stacks:
            self._stacks[digit] = []
            await self._push(mode.make())
        else:
            self._show_top()

    async def open(self, view: View) -> None:
        """Put a view on top of this mode."""
        await self._push(view)

    async def _push(self, view: View) -> None:
        self._stacks[self._mode].append(view)
        await self.screen_stack[0].query("#room").first().mount(view)
        self._show_top()

    async def back(self) -> None:
        """Close the top view; the root of a mode stays."""
        stack = self._stacks[self._mode]
        if len(stack) > 1:
            gone = stack.pop()
            self._show_top()
            self.workers.cancel_node(gone)  # what it reads has no place to be shown
            await gone.remove()
            forget_what_is_gone()

    def _show_top(self) -> None:
        top = self.top
        for stack in self._stacks.values():
            for view in stack:
                view.display = view is top
        if top is None or not top.is_mounted:  # it is shown when it is there
            return
        topics = top.topics()
        self._want()
        top.update(self.store, Changes.everything(topics))
        top.shown()
        if len(self.screen_stack) == 1:
            home = top.home()
            if home is not None:
                home.focus()
            else:
                self.screen.set_focus(None)
        self.refresh_header()
        self.refresh_footer()

    # The live stream.

    @property
    def every_s(self) -> float:
        return self.profile.refresh_s

    def _want(self) -> None:
        top = self.top
        wanted = _ALWAYS | (top.topics() if top else frozenset())
        self.feed.want(frozenset() if self.paused or self.locked else wanted)

    def topics_changed(self) -> None:
        """A view needs other topics than before."""
        self._want()

    def _connected(self, topics: frozenset[Topic]) -> None:
        self.trouble = None
        self.store.subscribed(topics)
        Reading(self._ask_who(), self.guarded).begin(self, "me")

    def _lost(self, error: AdminError) -> None:
        self.trouble = error
        self.refresh_footer()

    def _tick(self, tick: Tick) -> None:
        changes = self.store.apply(tick, self._monotonic_ns())
        top = self.top
        if changes and top is not None and top.is_mounted and self.is_running:
            top.update(self.store, changes)
        self.refresh_header()
        self._show_standing()

    async def _ask_who(self) -> None:
        self.me = await self.admin.get("/v1/me", Me)
        self.refresh_header()
        self.refresh_footer()

    @property
    def role(self) -> AccessRole:
        return "viewer" if self.read_only or self.me is None else self.me.role

    def _each_second(self) -> None:
        if self.lock.due(self.monotonic_s()):
            lock_now(self)
        self.refresh_header()
        self._show_standing()

    def refresh_header(self) -> None:
        line = self.line("header")
        if line is None or not self.is_running:
            return
        who = account(self.me.account, self.me.role, read_only=self.read_only) if self.me else []
        line.show(header(self.store, self.now(), self.size.width - width_of(who)), who)
        modes = self.line("modes")
        if modes is not None:
            titles = [view.title for view in self._stacks.get(self._mode, []) if view.title]
            modes.show(mode_bar(self._mode, titles, self.size.width))

    def _show_standing(self) -> None:
        self.refresh_footer()

    def refresh_footer(self) -> None:
        line = self.line("footer")
        top = self.top
        if line is None or top is None or not self.is_running:
            return
        age_s = self.store.age_s(self._monotonic_ns())
        trouble = self.trouble.message if self.trouble else ""
        state = standing(age_s, self.every_s, trouble, paused=self.paused)
        right = [*running(self.tasks.running), state]
        room = self.size.width - width_of(right)
        line.show(footer_hints(permitted(top.actions(), self.role), room), right)

    def begin(self, key: str) -> bool:
        """Start the action of a key on what is selected. Whether there is one."""
        top = self.top
        return top is not None and len(self.screen_stack) == 1 and self.deeds.begin(top, key)

    async def guarded(self, reading: Awaitable[None]) -> None:
        """What reads for a view: a refusal is told, the view goes on with what it has."""
        try:
            await reading
        except AdminError as error:
            self.notify(error.sentence, severity="error", timeout=8)

    # Alone at the terminal, or not.

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.InputEvent | events.Paste):
            self.lock.heard(self.monotonic_s())
        if isinstance(event, events.Key | events.Paste) and not event.is_forwarded:
            await self._keys.take(event)
        else:
            await super().on_event(event)

    def _way_of_keys(self) -> Sequence[MessagePump]:
        # Twice, and itself once more: what a key submits, and what that gives the keyboard to.
        at = (self.focused or self.screen) if self._screen_stack else None  # else it ends
        return (*(way := at.ancestors_with_self if at else ()), *way, self)

    def on_key(self, event: events.Key) -> None:
        """A capital letter that nothing below wanted: an action on what is selected.

        Here, where the bindings of the keys before it ran: a cursor just moved is in its place.
        """
        if event.character and event.character.isupper():
            self.begin(event.character)

    @property
    def locked(self) -> bool:
        return any(isinstance(screen, LockScreen) for screen in self.screen_stack)

    def lock_changed(self) -> None:
        """It was locked, or opened: nothing is read for what nobody sees."""
        self._want()

    def monotonic_s(self) -> float:
        return self._monotonic_ns() / 1e9

    # Keys of the frame.

    async def action_mode(self, digit: str) -> None:
        await self.go(digit)

    async def action_back(self) -> None:
        await self.back()

    def action_help(self) -> None:
        from console.widgets.help import help_text  # noqa: PLC0415 (only when it is asked for)

        self.push_screen(TextDialog("Keys", help_text(self)))

    def action_palette(self) -> None:
        from console.palette import CommandLine, carry_out  # noqa: PLC0415 (only when it is asked for)

        if not any(isinstance(screen, CommandLine) for screen in self.screen_stack):
            self.push_screen(CommandLine(), lambda meant: carry_out(self, meant))

    async def action_alerts(self) -> None:
        await self.go(ALERTS_MODE)
        if self.top is not None:
            self.top.reveal("alerts")

    def action_pause(self) -> None:
        self.paused = not self.paused
        self._want()
        self.refresh_footer()

    def action_copy(self) -> None:
        subject = self.top.subject() if self.top else None
        if subject is None:
            self.notify("There is nothing to copy here.")
            return
        self.copy_to_clipboard(as_text(subject))
        self.notify("Copied, where the terminal allows it (OSC 52).")

    def action_write(self) -> None:
        subject = self.top.subject() if self.top else None
        if subject is None:
            self.notify("There is nothing to write here.")
            return
        name = next(each.title for each in MODES if each.digit == self._mode).lower()
        try:
            path = write_out(name, subject, self.now())
        except OSError as error:
            self.notify(f"It cannot be written here: {error.strerror}.", severity="error")
            return
        self.notify(f"Written to {path}.")

    def action_leave(self) -> None:
        self.exit(0)

    def set_look(self, name: str) -> None:
        """Change the theme; `name` is one of LOOKS."""
        self.look = name
        self.theme = LOOKS[name].theme.name
        self.refresh(layout=True)
