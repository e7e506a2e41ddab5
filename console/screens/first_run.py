"""`:wizard`: the steps from nothing to the first answer, with what does each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final, cast

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.widgets import Static

from appliance.wire.access import Me
from appliance.wire.admin import SiteStatus
from appliance.wire.checks import CheckResult
from appliance.wire.stream import Topic
from appliance.wire.sync import EntitlementStatus
from console.actions import Action, Field, Values
from console.cells import Cell, Column, Row, Tone
from console.client import AdminError, decoded
from console.first_steps import Facts, Standing, Step, StepName, Tables, first_open, steps
from console.screens.model_actions import new_deployment
from console.screens.tenant_actions import new_environment, new_key, new_tenant
from console.store import Changes, Store
from console.view import View
from console.widgets.live_table import LiveTable

_TOPICS: Final[frozenset[Topic]] = frozenset(
    {"site", "nodes", "gpus", "models", "deployments", "tenants", "environments", "keys"}
)
_COLUMNS: Final = (
    Column("number", "", 1),
    Column("title", "STEP", 20),
    Column("standing", "", 10),
    Column("found", "HOW IT IS", 40, grow=True),
)
_STANDINGS: Final[dict[Standing, tuple[str, Tone]]] = {
    "done": ("● done", "good"),
    "open": ("▲ to do", "warn"),
    "optional": ("○ may wait", "dim"),
    "pending": ("◐ asking", "accent"),
}
# Where Enter leads from a step.
_PLACES: Final[dict[StepName, tuple[str, str]]] = {
    "roles": ("8", "settings"),
    "network": ("8", "checks"),
    "entitlement": ("5", "entitlement"),
    "gpus": ("2", "nodes"),
    "model": ("3", "deployments"),
    "key": ("4", ""),
    "chat": ("7", ""),
}


class FirstRunView(View):
    """Seven steps; each says how the site is and has the keys that bring it on."""

    title = "first steps"
    DEFAULT_CSS: ClassVar[str] = """
    FirstRunView LiveTable { height: 9; }
    FirstRunView #advice { height: 1fr; padding: 1 2; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._steps: tuple[Step, ...] = ()
        self._me: Me | None = None
        self._entitlement: EntitlementStatus | None = None
        self._checks: tuple[CheckResult, ...] = ()
        self._placed = ""  # the step that the cursor was put on
        self._table = LiveTable(_COLUMNS, _cells, sort_by="number")
        self._advice = Static("", id="advice")

    def compose(self) -> ComposeResult:
        yield self._table
        yield self._advice

    def topics(self) -> frozenset[Topic]:
        return _TOPICS

    def update(self, store: Store, changes: Changes) -> None:  # noqa: ARG002 (View's)
        if any(changes.touches(topic) for topic in _TOPICS):
            self._show()

    def shown(self) -> None:
        self.load(self._ask())
        self.load(self._check(), name="checks")

    async def _ask(self) -> None:
        self._me = await self.admin.get("/v1/me", Me)
        self._entitlement = (await self.admin.get("/v1/status", SiteStatus)).entitlement
        self._show()

    async def _check(self) -> None:
        try:
            lines = self.admin.lines("/v1/checks", {"only": "clock"})
            self._checks = tuple([decoded(line, CheckResult) async for line in lines if line])
        except AdminError:
            return  # the step does without it
        self._show()

    def _show(self) -> None:
        store = self.store
        tables = cast("Tables", {topic: store.table(topic) for topic in _TOPICS - {"site"}})
        facts = Facts(tables, store.site, self._me, self._entitlement, self._checks)
        self._steps = steps(facts)
        rows: dict[str, Row] = {
            step.name: {"number": number, **_row(step)}
            for number, step in enumerate(self._steps, start=1)
        }
        self._table.replace(rows)
        self._go_on()
        self._advise()

    def _go_on(self) -> None:
        """To the first open step; from there to the next when it is done, unless somebody looks at
        another one meanwhile."""
        if not all(self.store.knows(topic) for topic in _TOPICS):
            return
        step = first_open(self._steps)
        if step is not None and self._placed in ("", self._table.current):
            self._placed = step.name
            self._table.select(step.name)

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self._advise()
        self.selection_changed()

    def _advise(self) -> None:
        step = self._step()
        if step is None:
            return
        left = sum(each.standing == "open" for each in self._steps)
        rest = "All is done: the site answers." if not left else f"{left} to do."
        self._advice.update(Text(f"{step.found}\n\n{step.advice}\n\n{rest}"))

    def _step(self) -> Step | None:
        return next((step for step in self._steps if step.name == self._table.current), None)

    @on(LiveTable.Opened)
    async def _opened(self) -> None:
        step = self._step()
        if step is not None:
            digit, part = _PLACES[step.name]
            await self.console.go(digit)
            if self.console.top is not None and part:
                self.console.top.reveal(part)

    def actions(self) -> Sequence[Action]:
        step = self._step()
        if step is None:
            return ()
        match step.name:
            case "roles":
                return (_roles(),)
            case "network":
                return (_address(),)
            case "entitlement":
                return (_install(), _enrol())
            case "gpus":
                return (_token(),)
            case "model":
                return (new_deployment(self._names("models")), _import())
            case "key":
                return (self._next_of_key(),)
        return ()

    def _next_of_key(self) -> Action:
        tenants = self._names("tenants")
        if not tenants:
            return new_tenant()
        tenant = tenants[0]
        environments = [
            str(row["name"])
            for row in self.store.table("environments").values()
            if row.get("tenant") == tenant
        ]
        if not environments:
            return new_environment(tenant)
        return new_key(tenant, environments, environments[0])

    def _names(self, topic: Topic) -> list[str]:
        return sorted(str(row.get("name", "")) for row in self.store.table(topic).values())

    def subject(self) -> Any:
        return [_row(step) for step in self._steps]


def _row(step: Step) -> Row:
    return {
        "step": step.name,
        "title": step.title,
        "standing": step.standing,
        "found": step.found,
        "advice": step.advice,
    }


def _cells(_row_id: str, row: Row) -> list[Cell]:
    word, tone = _STANDINGS[row["standing"]]
    return [
        Cell(str(row["number"]), "dim"),
        Cell(row["title"]),
        Cell(word, tone),
        Cell(row["found"], "plain" if row["standing"] == "open" else "dim"),
    ]


def _roles() -> Action:
    names = ("admins", "operators", "viewers")

    def argv(values: Values) -> list[str]:
        given = [name for name in names if values.get(name)]
        if len(given) != 1:
            raise ValueError("Answer one of them; the next one after it.")
        return ["settings", "set", f"access.{given[0]}", values[given[0]]]

    return Action(
        key="E",
        title="Groups",
        role="admin",
        argv=argv,
        impact="From then on only members of such groups, and the account that serves, may do what"
        " the role allows. Name a group for admins first.",
        fields=tuple(
            Field(name, name.capitalize(), hint="Groups of this host, with commas.")
            for name in names
        ),
        done="The groups are set.",
    )


def _address() -> Action:
    return Action(
        key="E",
        title="Address",
        role="admin",
        argv=lambda values: ["settings", "set", "gateway.listen", values["listen"]],
        impact="In force after the next start of the appliance.",
        fields=(Field("listen", "Listen on", default="0.0.0.0:8080", required=True),),
        done="Set. It is in force after the next start of the appliance.",
    )


def _install() -> Action:
    def argv(values: Values) -> list[str]:
        key = values.get("key", "")
        more = ["--control-plane-key", key] if key else []
        return ["entitlement", "install", values["file"], *more]

    return Action(
        key="I",
        title="Install",
        role="admin",
        argv=argv,
        impact="One that is refused leaves what is installed in force.",
        fields=(
            Field("file", "File", "path", required=True, hint="On this host, as on a stick."),
            Field("key", "Vendor's key", "path", hint="PEM; only the first time."),
        ),
        done="The entitlement is in force.",
    )


def _enrol() -> Action:
    return Action(
        key="N",
        title="Enrol online",
        role="admin",
        argv=lambda values: ["sync", "enrol", values["url"], "-"],
        stdin="code",
        fields=(
            Field("url", "Control plane", required=True, hint="https://…"),
            Field(
                "code", "One-time code", "secret", required=True, hint="Of the vendor; good once."
            ),
        ),
        done="The site is known to the control plane.",
    )


def _token() -> Action:
    def argv(values: Values) -> list[str]:
        node = values.get("node", "")
        return [
            *("node", "token", "create", "--ttl", values["ttl"]),
            *(["--node", node] if node else []),
        ]

    return Action(
        key="N",
        title="Add a node",
        role="admin",
        argv=argv,
        impact="Makes a token for one more node, and opens the node API if it is closed.",
        fields=(
            Field("ttl", "Good for", default="1h", required=True),
            Field("node", "Only for", hint="A name. Empty: whichever comes."),
        ),
        shown_once="command",
    )


def _import() -> Action:
    return Action(
        key="I",
        title="Import a pack",
        role="admin",
        argv=lambda values: [
            *("model", "import", values["file"]),
            *(["--accept-licence"] if values.get("licence") else []),
        ],
        fields=(
            Field("file", "Pack", "path", required=True, hint="On this host, as on a stick."),
            Field("licence", "Accept its licence", "toggle"),
        ),
        slow=True,
        done="The model is in the store.",
    )
