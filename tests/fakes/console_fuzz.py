"""Someone at the console who does anything, over a site where anything goes wrong. By a seed.

Most of what is done at random leads nowhere: into a dialog, a paste, a terminal too small. So
after a while one goes elsewhere, takes the keys that are offered there, and fills in forms.
"""

import asyncio
import importlib.metadata
import random
import string
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import cache
from typing import Final

from textual import events
from textual.drivers.headless_driver import HeadlessDriver
from textual.geometry import Size
from textual.keys import _character_to_key, key_to_character
from textual.pilot import Pilot
from textual.widgets import Input

from console.actions import Action, Field, permitted
from console.app import ConsoleApp
from console.command_line import DEEDS, PLACES
from console.command_tree import Command, described
from console.modes import MODES
from console.profile import Profile
from console.widgets.dialogs import ActionDialog, SecretDialog
from console.widgets.form import Choice, Toggle, widget_of
from console.widgets.live_table import LiveTable
from tests.fakes.console_pilot import NOW
from tests.fakes.console_reached import Reached
from tests.fakes.random_messages import random_text
from tests.fakes.simulated_site import SimulatedSite
from tests.fakes.troubled_site import TroubledSite

_SIZES: Final = ((80, 24), (160, 48), (200, 60), (79, 24), (80, 23), (1, 1), (3, 60), (120, 5))
_NAMED: Final = (
    *("enter", "escape", "tab", "shift+tab", "up", "down", "left", "right", "home", "end"),
    *("pageup", "pagedown", "backspace", "delete", "space", "f1", "ctrl+u", "ctrl+w", "ctrl+a"),
    *("ctrl+e", "ctrl+k", "ctrl+z", "ctrl+p", "ctrl+d", "ctrl+left", "shift+right", "f5"),
)
_LIKELY: Final = "12345678jjkksf/?:!pyw+-chtvelubdraoiEDXNRSAIVBTK"
_TYPED: Final = (
    "deployment",
    "tenant",
    "node",
    "usage",
    "audit",
    "key",
    "model",
    "limits",
    "serve",
)
_WAITS_S: Final = (0.0, 0.001, 0.004)
_ANSWER_S: Final = 30.0
_ELSEWHERE: Final = 30  # events in one place
_SEEN_S: Final = 0.3  # in this time mostly comes what was asked for
_PASSPHRASE: Final = "sesame"
_LEAVES: Final = frozenset({"q", "ctrl+c"})


class Screen(HeadlessDriver):
    """Takes what is written as a terminal would; `beyond` is the first that was not ASCII."""

    beyond: str = ""
    written: int = 0

    @property
    def is_headless(self) -> bool:
        return False  # else the app would write nothing

    def write(self, data: str) -> None:
        self.written += len(data)
        if not self.beyond and not data.isascii():
            self.beyond = data


class _NoTerminal:
    """There is none that could hang up."""

    def watch(self, _app: ConsoleApp) -> None:
        pass


@cache
def _tree() -> Command:
    entries = importlib.metadata.entry_points(group="crosslogic.commands")
    return Command(
        "cic",
        commands=tuple(
            described(each.name, each.load()) for each in entries if each.name in _TYPED
        ),
    )


def _has_rows(app: ConsoleApp) -> bool:
    return app.top is not None and any(table.shown for table in app.top.query(LiveTable))


class Fuzz:
    """Events by a seed. `events` are counted over all the consoles that were begun."""

    def __init__(
        self, site: SimulatedSite, seed: int, reached: Reached, *, ascii_only: bool
    ) -> None:
        self.chance = random.Random(seed)
        self.reached = reached
        self.events = 0
        self.begun = 0
        self.children = 0
        self.slowest_s = 0.0  # from a key to the mode it asked for, whatever was before
        self.trail: list[str] = []  # the last events, to tell how it came
        self._home = site.home
        self._site = TroubledSite(site, self.chance, self._note, self._began)
        self._ascii_only = ascii_only
        self._since = 0
        self._digits = self._in_turn([mode.digit for mode in MODES])
        self._words = self._in_turn([*PLACES, "wizard"])
        its = self._site
        self._kinds: tuple[tuple[int, Callable[[Pilot[int]], Awaitable[None]]], ...] = (
            (200, self._keys),
            (170, self._offered),
            (180, self._deed),
            (50, self._answer),
            (90, self._row),
            (25, self._command_line),
            (15, self._paste),
            (15, self._resize),
            (40, self._mouse),
            *(
                (weight, lambda _pilot, happens=happens: happens())
                for weight, happens in (
                    (80, its.step),
                    (60, its.odd_rows),
                    (10, its.unknown_rows),
                    (25, its.fault),
                    (6, its.leave),
                    (6, its.restart),
                    (8, its.role),
                    (25, its.answers),
                )
            ),
            (30, self._mend),
            (15, self._wait),
        )

    async def run(self, number: int) -> None:
        """So many events, in as many consoles as they need."""
        goal = self.events + number
        while self.events < goal:
            await self._one_console(goal)

    async def _one_console(self, goal: int) -> None:
        profile = Profile(
            dumb=False,
            ascii=self._ascii_only,
            colours="truecolor",
            mouse=True,
            refresh_s=1.0,
        )
        await self._site.mend()
        start = self.chance.choice("12345678")
        app = ConsoleApp(self._home, profile, start=start, now=lambda: NOW)
        app._hang_up = _NoTerminal()  # type: ignore[assignment]
        app.driver_class = Screen
        app.commands.tree = _tree()
        app.deeds.children._run = self._site.child  # type: ignore[method-assign]
        self._listen(app)
        self.begun += 1
        self._note(f"console in mode {start}")
        async with app.run_test(headless=False, size=(80, 24), notifications=True) as pilot:
            while self.events < goal and app.is_running:
                weights = [weight for weight, _ in self._kinds]
                _, kind = self.chance.choices(self._kinds, weights)[0]
                before = self.events
                await kind(pilot)
                self.events = max(self.events, before + 1)  # each key is one
                await self._look(app)
                if self.events - self._since >= _ELSEWHERE and app.is_running:
                    await self._elsewhere(pilot)
            if app.is_running:
                await self._elsewhere(pilot)
        assert app.return_code in (None, 0), app.return_code  # None: the pilot ended it

    def _listen(self, app: ConsoleApp) -> None:
        """To what is asked of the appliance."""
        act = app.deeds.act

        def heard(action: Action, *, problem: str = "") -> None:
            self.reached.asked.add(self._asked(app, action))
            act(action, problem=problem)

        app.deeds.act = heard  # type: ignore[method-assign]

    def _asked(self, app: ConsoleApp, action: Action) -> str:
        return f"{type(app.top).__name__}.{action.key or 'typed'}"

    def _began(self, arguments: Sequence[str]) -> None:
        self.children += 1
        self.reached.command(arguments)

    async def _look(self, app: ConsoleApp) -> None:
        # Mostly so long that it is on its way, sometimes until it is done.
        await asyncio.sleep(0.05 if self.chance.random() < 0.03 else self.chance.choice(_WAITS_S))
        if app._exception is not None:
            return  # it is raised by the pilot's end
        if app.top is not None:
            self.reached.views.add(type(app.top).__name__)
        self.reached.dialogs.update(type(screen).__name__ for screen in app.screen_stack[1:])
        driver = app._driver
        assert isinstance(driver, Screen)
        assert not (self._ascii_only and driver.beyond), driver.beyond

    # Elsewhere.

    def _in_turn(self, all_of_them: list[str]) -> Iterator[str]:
        """Each as often as the others, in an order by chance."""
        while True:
            yield from self.chance.sample(all_of_them, len(all_of_them))

    async def _elsewhere(self, pilot: Pilot[int]) -> None:
        """Whole again, out of whatever it was, and to the next place: that always works."""
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        if self.chance.random() < 0.7:
            await self._mend(pilot)
        self._resized(pilot, *self.chance.choice((*_SIZES[:1] * 4, *_SIZES[:3])))
        began_s = time.monotonic()
        await self._out_of_dialogs(pilot)
        digit = next(self._digits)
        while app.is_running and (app.mode != digit or len(app.screen_stack) > 1):
            for key in ("escape", "escape", "escape", digit):  # a filter and labels first
                self._type(pilot, key)
            await self._until(lambda: app.mode == digit and len(app.screen_stack) == 1, 1.0)
            if time.monotonic() - began_s > _ANSWER_S:
                raise AssertionError(f"It does not go to mode {digit} from {app.screen_stack}")
        self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
        if self.chance.random() < 0.5:
            self._line(pilot, next(self._words))
            await self._until(lambda: len(app.screen_stack) > 1, 0.1)
            await self._until(lambda: len(app.screen_stack) == 1)
        await self._until(lambda: _has_rows(app), 0.1)
        await self._look(app)
        await self._row(pilot)
        self._since = self.events

    async def _out_of_dialogs(self, pilot: Pilot[int]) -> None:
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        async with asyncio.timeout(_ANSWER_S):
            while app.is_running and len(app.screen_stack) > 1:
                if app.locked:  # nobody knows what was typed by chance
                    app.lock.choose(_PASSPHRASE)
                    app.lock._shut_until_s = 0.0
                    for key in ("ctrl+u", *_PASSPHRASE, "enter"):
                        self._type(pilot, key)
                elif isinstance(app.screen, SecretDialog):
                    app.screen.close()  # only its own button closes it
                else:
                    self._type(pilot, "escape")
                await asyncio.sleep(0.02)

    async def _until(self, seen: Callable[[], object], within_s: float = _SEEN_S) -> None:
        """Until it is seen, or not."""
        end_s = time.monotonic() + within_s
        while not seen() and time.monotonic() < end_s:  # noqa: ASYNC110 (a screen tells nobody)
            await asyncio.sleep(0.005)

    # What a person does.

    def _note(self, what: str) -> None:
        self.trail.append(what)
        del self.trail[:-80]

    async def _offered(self, pilot: Pilot[int]) -> None:
        """A key that does something here, as the footer and the help have them."""
        keys = [key for key in pilot.app.screen.active_bindings if key not in _LEAVES]
        if keys:
            self._type(pilot, self.chance.choice(sorted(keys)))

    async def _deed(self, pilot: Pilot[int]) -> None:
        """An action on what is selected, and mostly what it asks is answered."""
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        await self._until(lambda: not app._keys._waiting)
        actions = permitted(app.top.actions(), app.role) if app.top else ()
        if len(app.screen_stack) > 1:
            return await self._answer(pilot)
        if not actions:
            return await self._row(pilot)
        if self.chance.random() < 0.5:  # more than one is rarely looked for
            actions = [each for each in actions if self._asked(app, each) not in self.reached.asked]
            actions = actions or permitted(app.top.actions(), app.role)
        app.screen.set_focus(None if isinstance(app.focused, Input) else app.focused)
        self._type(pilot, self.chance.choice(actions).key)
        await self._until(lambda: len(app.screen_stack) > 1)
        if self.chance.random() < 0.8:
            await self._answer(pilot)
        return None

    async def _answer(self, pilot: Pilot[int]) -> None:
        """A form is filled in, and sent."""
        dialog = pilot.app.screen
        if not isinstance(dialog, ActionDialog):
            self._type(pilot, "enter" if isinstance(dialog, SecretDialog) else "escape")
            return
        for field in dialog.action.fields:
            if self.chance.random() < (0.95 if field.required and not field.default else 0.5):
                self._fill(pilot, field)
            self._type(pilot, "down")
        if dialog.action.danger == "typed":
            wrong = self.chance.random() < 0.1
            for sign in random_text(self.chance) if wrong else dialog.action.type_this:
                self._type(pilot, sign)
        ends = (*[("pagedown", "enter")] * 6, ("enter",), ("tab", "enter"), ("y",))
        for key in self.chance.choice(ends):
            self._type(pilot, key)
        await self._until(lambda: pilot.app.screen is not dialog)

    def _fill(self, pilot: Pilot[int], field: Field) -> None:
        widget = widget_of(field)
        if isinstance(widget, Choice | Toggle):
            for _ in range(self.chance.randrange(4)):
                self._type(pilot, self.chance.choice(("space", "left", "right")))
            return
        assert isinstance(widget, Input)
        if field.default and self.chance.random() < 0.5:
            self._type(pilot, "ctrl+u")
        words = (*field.choices[:20], "gemma-2-9b", "acme", "7", "2027-01-01", "x y", "new-one")
        number = self.chance.random() < 0.8 and field.kind == "int"
        for sign in "12" if number else self.chance.choice((*words, random_text(self.chance))):
            self._type(pilot, sign)

    async def _row(self, pilot: Pilot[int]) -> None:
        """A row of the table that is looked at is opened."""
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        top = app.top
        if top is None or len(app.screen_stack) > 1:
            return
        tables = [table for table in top.query(LiveTable) if table.focusable]
        if tables and self.chance.random() < 0.7:
            app.screen.set_focus(self.chance.choice(tables))
        for _ in range(self.chance.randrange(4)):
            self._type(pilot, self.chance.choice("jjk"))
        self._type(pilot, "enter")

    async def _keys(self, pilot: Pilot[int]) -> None:
        kind = self.chance.random()
        if kind < 0.5:
            keys = [self.chance.choice(_LIKELY)]
        elif kind < 0.85:
            keys = [self.chance.choice(_NAMED)]
        elif kind < 0.95:
            keys = [self.chance.choice(string.printable[:94]) for _ in range(3)]
        else:
            keys = [self.chance.choice("éß漢👩\u0301\x1c")]
        if self.chance.random() < 0.97:
            keys = [key for key in keys if key != "q"]
        for key in keys:
            self._type(pilot, key)

    def _type(self, pilot: Pilot[int], key: str) -> None:
        self.events += 1
        self._note(f"key {key!r}")
        sign = key if len(key) == 1 else key_to_character(key)
        name = _character_to_key(key) if len(key) == 1 else key
        event = events.Key(name, sign)
        event.set_sender(pilot.app)
        driver = pilot.app._driver
        assert driver is not None
        driver.send_message(event)

    async def _command_line(self, pilot: Pilot[int]) -> None:
        commands = _tree().commands
        command = self.chance.choice(commands)
        nested = self.chance.choice(command.commands).name if command.commands else ""
        texts = (
            self.chance.choice(tuple(PLACES)),
            self.chance.choice([deed for deed in DEEDS if deed not in ("quit", "lock")]),
            f"theme {self.chance.choice(('light', 'dark', 'terminal', 'contrast', 'puce'))}",
            f"{command.name} {nested} {self.chance.choice(('acme', '--yes', '--help', 'x y'))}",
            random_text(self.chance),
            self.chance.choice(("'", '"\\', "cic", "--home /", "wizard", "q" * 3)),
        )
        text = self.chance.choice(texts)
        if self.chance.random() < 0.01:
            text = self.chance.choice(("lock", "quit"))
        self._line(pilot, text, self.chance.choice(("enter", "enter", "enter", "tab", "escape")))

    def _line(self, pilot: Pilot[int], text: str, end: str = "enter") -> None:
        for sign in (":", *text):
            self._type(pilot, sign)
        self._type(pilot, end)

    async def _paste(self, pilot: Pilot[int]) -> None:
        text = random_text(self.chance, 400)
        self._note(f"paste {text[:40]!r}")
        self._send(pilot, events.Paste(text))

    async def _resize(self, pilot: Pilot[int]) -> None:
        by_chance = (self.chance.randrange(1, 220), self.chance.randrange(1, 70))
        width, height = self.chance.choice((*_SIZES[:3], *_SIZES, by_chance))
        self._note(f"resize {width}x{height}")
        self._resized(pilot, width, height)

    def _resized(self, pilot: Pilot[int], width: int, height: int) -> None:
        size = Size(width, height)
        driver = pilot.app._driver
        assert isinstance(driver, Screen)
        driver._size = (width, height)
        pilot.app.post_message(events.Resize(size, size))

    async def _mouse(self, pilot: Pilot[int]) -> None:
        width, height = pilot.app.size
        x, y = self.chance.randrange(max(1, width)), self.chance.randrange(max(1, height))
        kinds: tuple[type[events.MouseEvent], ...] = self.chance.choice(
            (
                (events.MouseDown, events.MouseUp),
                (events.MouseDown, events.MouseUp, events.MouseDown, events.MouseUp),
                (events.MouseScrollDown,),
                (events.MouseScrollUp,),
                (events.MouseMove,),
                (events.MouseDown, events.MouseMove),
            )
        )
        self._note(f"mouse {[kind.__name__ for kind in kinds]} {x},{y}")
        for kind in kinds:
            self._send(
                pilot,
                kind(
                    widget=None, x=x, y=y, delta_x=0, delta_y=0, button=1,
                    shift=False, meta=False, ctrl=False, screen_x=x, screen_y=y,
                ),
            )  # fmt: skip

    def _send(self, pilot: Pilot[int], event: events.Event) -> None:
        event.set_sender(pilot.app)
        driver = pilot.app._driver
        assert driver is not None
        driver.send_message(event)

    async def _mend(self, pilot: Pilot[int]) -> None:
        await self._site.mend()
        assert isinstance(pilot.app, ConsoleApp)
        pilot.app.feed.again()

    async def _wait(self, _pilot: Pilot[int]) -> None:
        await asyncio.sleep(0.02)
