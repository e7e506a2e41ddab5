"""Someone at the console who does anything, over a site where anything goes wrong. By a seed."""

import asyncio
import importlib.metadata
import random
import string
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from textual import events
from textual.drivers.headless_driver import HeadlessDriver
from textual.geometry import Size
from textual.pilot import Pilot

from appliance.wire.admin import (
    AuditEntry,
    Environment,
    Key,
    LayerReport,
    LedgerRow,
    SiteStatus,
    UsageRow,
)
from appliance.wire.backups import BackupList
from appliance.wire.burst import Burst
from appliance.wire.certificates import SiteCertificate
from appliance.wire.checks import CheckResult
from appliance.wire.engine_traces import ReplicaDump, ReplicaLog
from appliance.wire.fleet import Model, Node, Region
from appliance.wire.gpu import GpuHistory, NodeGpu
from appliance.wire.log_lines import LogLine
from appliance.wire.manifests import ManifestShown
from appliance.wire.models import CatalogueModel, PackCopying, PackSeen
from appliance.wire.node_tokens import NodeCertificate, NodeToken
from appliance.wire.placement import Explanation
from appliance.wire.settings import Setting
from appliance.wire.stream import (
    Alert,
    DeploymentRow,
    Event,
    HistorySeries,
    LimitRow,
    ReplicaRow,
    RequestRow,
    SiteRow,
    TenantRow,
)
from appliance.wire.sync import EntitlementStatus, SyncStatus
from console.app import ConsoleApp
from console.command_line import DEEDS, PLACES
from console.command_tree import Command, described
from console.profile import Profile
from console.widgets.dialogs import SecretDialog
from tests.fakes.console_pilot import NOW
from tests.fakes.random_messages import random_message, random_row, random_text
from tests.fakes.simulated_fleet import SimulatedFleet
from tests.fakes.simulated_site import Faults, SimulatedSite

ROWS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "site": SiteRow,
    "nodes": Node,
    "gpus": NodeGpu,
    "deployments": DeploymentRow,
    "replicas": ReplicaRow,
    "requests": RequestRow,
    "models": Model,
    "tenants": TenantRow,
    "environments": Environment,
    "keys": Key,
    "limits": LimitRow,
    "sync": SyncStatus,
    "alerts": Alert,
    "events": Event,
}
# End of a path -> its answer; `LINES` are answered as one object a line.
_ANSWERS: Final[Sequence[tuple[str, Any]]] = (
    ("/v1/status", SiteStatus),
    ("/v1/limits", list[LayerReport]),
    ("/v1/usage", list[UsageRow]),
    ("/v1/entitlement", EntitlementStatus),
    ("/v1/settings", list[Setting]),
    ("/v1/certificates", list[SiteCertificate]),
    ("/v1/backups", BackupList),
    ("/v1/regions", list[Region]),
    ("/v1/bursts", list[Burst]),
    ("/v1/node-tokens", list[NodeToken]),
    ("/v1/node-certificates", list[NodeCertificate]),
    ("/v1/history", list[HistorySeries]),
    ("/gpu-history", GpuHistory),
    ("/explain", Explanation),
    ("/logs", list[ReplicaLog]),
    ("/dumps", list[ReplicaDump]),
    ("/v1/models/catalogue", list[CatalogueModel]),
    ("/v1/models/packs/copying", PackCopying),
    ("/v1/models/packs/look", PackSeen),
)
_LINES: Final[Mapping[str, Any]] = {
    "/v1/checks": CheckResult,
    "/v1/audit": AuditEntry,
    "/v1/ledger": LedgerRow,
    "/v1/logs": LogLine,
}
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
_ANSWER_S: Final = 20.0
_LOCKED_MAX: Final = 40


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


class Fuzz:
    """Events by a seed. `events` are counted over all the consoles that were begun."""

    def __init__(self, site: SimulatedSite, seed: int, *, ascii_only: bool) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.site = site
        self.events = 0
        self.begun = 0
        self.visited: set[str] = set()
        self.children = 0
        self.trail: list[str] = []  # the last events, to tell how it came
        self._ascii_only = ascii_only
        self._locked = 0
        self._odd = False
        self._kinds: tuple[tuple[int, Callable[[Pilot[int]], Any]], ...] = (
            (560, self._keys),
            (60, self._command_line),
            (25, self._paste),
            (20, self._resize),
            (50, self._mouse),
            (90, self._step),
            (60, self._odd_rows),
            (25, self._fault),
            (40, self._mend),
            (8, self._restart),
            (12, self._role),
            (30, self._answers),
            (20, self._wait),
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
        self._mended()
        app = ConsoleApp(self.site.home, profile, start=self._digit(), now=lambda: NOW)
        app._hang_up = _NoTerminal()  # type: ignore[assignment]
        app.driver_class = Screen
        app.commands.tree = _tree()
        app.deeds.children._run = self._child  # type: ignore[method-assign,assignment]
        self._locked = 0
        self.begun += 1
        async with app.run_test(headless=False, size=(80, 24), notifications=True) as pilot:
            while self.events < goal and app.is_running and not self._stuck(app):
                weights = [weight for weight, _ in self._kinds]
                _, kind = self.chance.choices(self._kinds, weights)[0]
                before = self.events
                await kind(pilot)
                self.events = max(self.events, before + 1)  # each key is one
                await self._look(app)
            if app.is_running:
                await self._answers_again(app, pilot)
        assert app.return_code in (None, 0), app.return_code  # None: the pilot ended it

    def _stuck(self, app: ConsoleApp) -> bool:
        """Nobody knows the passphrase that was typed by chance."""
        self._locked = self._locked + 1 if app.locked else 0
        return self._locked > _LOCKED_MAX

    async def _look(self, app: ConsoleApp) -> None:
        # Mostly so long that it is on its way, sometimes until it is done.
        await asyncio.sleep(0.05 if self.chance.random() < 0.03 else self.chance.choice(_WAITS_S))
        if app._exception is not None:
            return  # it is raised by the pilot's end
        self.visited.update(type(view).__name__ for view in app.query("View"))
        self.visited.update(type(screen).__name__ for screen in app.screen_stack)
        driver = app._driver
        assert isinstance(driver, Screen)
        assert not (self._ascii_only and driver.beyond), driver.beyond

    async def _answers_again(self, app: ConsoleApp, pilot: Pilot[int]) -> None:
        """After all that, it is a console as before."""
        self._mended()
        self._resized(pilot, 80, 24)
        async with asyncio.timeout(_ANSWER_S):
            while app.is_running and not app.locked and len(app.screen_stack) > 1:
                if isinstance(app.screen, SecretDialog):
                    app.screen.dismiss(None)  # only its own button closes it
                self._type(pilot, "escape")
                await asyncio.sleep(0.01)
            for key in ("escape", "escape", "2"):  # a filter and labels first
                self._type(pilot, key)
            while app.is_running and not app.locked and app.mode != "2":  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    # What a person does.

    def _digit(self) -> str:
        return self.chance.choice("12345678")

    def _note(self, what: str) -> None:
        self.trail.append(what)
        del self.trail[:-60]

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
        names = {":": "colon", "/": "slash", "?": "question_mark", "!": "exclamation_mark"}
        sign = key if len(key) == 1 else " " if key == "space" else None
        event = events.Key(names.get(key, key), sign)
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
        for sign in (":", *text):
            self._type(pilot, sign)
        self._type(pilot, self.chance.choice(("enter", "enter", "enter", "tab", "escape")))

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

    # What the site does.

    async def _step(self, _pilot: Pilot[int]) -> None:
        self._note("step")
        if self._odd:  # rows that the fleet has not made itself do not live
            self.site.tell()
        else:
            self.site.step()

    async def _odd_rows(self, _pilot: Pilot[int]) -> None:
        """Rows go, come, and change into anything their type allows."""
        tables = self.site.fleet.tables()
        topic = self.chance.choice(tuple(ROWS))
        table = tables[topic]
        self._note(f"rows of {topic}")
        self._odd = True
        ids = list(table)
        doing = self.chance.random()
        if doing < 0.3 and ids and topic not in ("site", "sync"):
            for row_id in self.chance.sample(ids, self.chance.randrange(len(ids) + 1)):
                del table[row_id]
        elif doing < 0.5 and ids:
            row_id = self.chance.choice(ids)
            made = random_row(ROWS[topic], self.chance)
            names = [name for name in made if not _is_name(name)]
            for name in self.chance.sample(names, min(3, len(names))):
                table[row_id] = {**table[row_id], name: made[name]}
        elif len(ids) < 60:
            row_id = ids[0] if topic in ("site", "sync") and ids else f"x_{self.chance.random()}"
            made = random_row(ROWS[topic], self.chance)
            base = table[self.chance.choice(ids)] if ids else made
            table[row_id] = {**made, **{name: base[name] for name in base if _is_name(name)}}
            if "id" in made:
                table[row_id]["id"] = row_id
        self.site.tell()

    async def _fault(self, _pilot: Pilot[int]) -> None:
        faults = self.chance.choice(
            (
                Faults(slow_s=0.05),
                Faults(status=500),
                Faults(status=403),
                Faults(garbage=True),
                Faults(hang_up=True),
                Faults(silent=True),
            )
        )
        self._note(f"fault {faults}")
        self.site.faults = faults
        self.site.tell()

    async def _mend(self, pilot: Pilot[int]) -> None:
        self._note("mend")
        self._mended()
        assert isinstance(pilot.app, ConsoleApp)
        pilot.app.feed.again()

    def _mended(self) -> None:
        self.site.faults = Faults()
        self.site.tell()

    async def _restart(self, pilot: Pilot[int]) -> None:
        self._note("restart")
        self.site.fleet = SimulatedFleet(
            condition=self.chance.choice(("busy", "busy", "failed", "empty")),
            seed=self.chance.randrange(1_000),
        )
        self._odd = False
        self.site.boot = f"b{self.chance.randrange(10**6)}"
        self.site.faults = Faults(hang_up=True)
        self.site.tell()
        await asyncio.sleep(0.02)
        await self._mend(pilot)

    async def _role(self, pilot: Pilot[int]) -> None:
        self.site.role = self.chance.choice(("viewer", "operator", "admin", "admin", "admin"))
        self._note(f"role {self.site.role}")
        await self._restart(pilot)

    async def _answers(self, _pilot: Pilot[int]) -> None:
        """Other answers for what is read beside the stream; some are not there at all."""
        self._note("answers")
        self.site.answers = _Answers(self.chance)

    async def _wait(self, pilot: Pilot[int]) -> None:
        await asyncio.sleep(0.02)

    # What `cic` would have done.

    async def _child(
        self,
        arguments: Sequence[str],
        _stdin: str,
        _extra: Mapping[str, str],
        answer: bytearray | None,
        on_line: Callable[[str], None],
    ) -> int:
        assert all(isinstance(each, str) for each in arguments), arguments
        self.children += 1
        self._note(f"child {list(arguments)}")
        chance = random.Random(self.chance.random())
        await asyncio.sleep(chance.choice((0.0, 0.0, 0.01, 0.1)))
        for _ in range(chance.randrange(5)):
            on_line(random_text(chance, 100))
            await asyncio.sleep(0)
        if chance.random() < 0.05:
            raise FileNotFoundError(2, "No such file or directory", "cic")
        code = chance.choice((0, 0, 0, 1, 2, 5, 130))
        if answer is not None:
            refusal = {"code": "refused", "message": random_text(chance), "next_step": "Look."}
            good = {"secret": "sk-1", "name": random_text(chance), "id": "x", "warnings": ["w"]}
            made = good if code == 0 else {"error": refusal}
            answer += chance.choice((msgspec.json.encode(made), b"", b'{"half', b"\xff[]", b"[1]"))
        return code


class _Answers(dict[str, Any]):
    """An answer by chance for each path that has a type."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = random.Random(chance.random())

    def __contains__(self, path: object) -> bool:
        return self._chance.random() < 0.9 and self._kind(str(path)) is not None

    def _kind(self, path: str) -> Any:
        if path in _LINES:
            return _LINES[path]
        if path == "/metrics":
            return bytes
        if path.startswith("/v1/manifests/"):
            return ManifestShown
        return next((kind for end, kind in _ANSWERS if path.endswith(end)), None)

    def __getitem__(self, path: str) -> Any:
        kind = self._kind(path)
        if path in _LINES:
            number = self._chance.randrange(12)
            rows = [random_message(kind, self._chance) for _ in range(number)]
            return b"\n".join(msgspec.json.encode(row) for row in rows) + b"\n"
        if kind is bytes:
            return random_text(self._chance, 200).encode() + b"\nx_total 1\ny NaN\n"
        return random_message(kind, self._chance)


def _is_name(name: str) -> bool:
    """Fields by which rows name one another."""
    return name in ("id", "name", "kind") or name.endswith("_id")
