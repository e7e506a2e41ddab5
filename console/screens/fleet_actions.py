"""What can be done to nodes, join tokens, regions and lent machines, as command lines. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from console.actions import Action, Field, Values, options, plain
from console.cells import Row
from console.words import count, plural

_REASON = Field("reason", "Reason", hint="For those who come after.")


def losses(node: str, replicas: Iterable[Row], deployments: Iterable[Row]) -> str:
    """What runs on a node, and which deployments have nothing else, in words with figures."""
    ready = [row for row in replicas if row.get("state") == "ready"]
    here = [row for row in ready if row.get("node") == node]
    running = sum(row.get("requests_running") or 0 for row in here)
    elsewhere = {row.get("deployment") for row in ready if row.get("node") != node}
    last = sorted({str(row.get("deployment")) for row in here} - {str(name) for name in elsewhere})
    known = {str(row.get("name")) for row in deployments}
    last = [name for name in last if name in known]
    text = f"{plural(len(here), 'ready replica')} run here with {plural(running, 'request')}."
    if last:
        shown = ", ".join(last[:4]) + (f" and {len(last) - 4} more" if len(last) > 4 else "")
        text += f" {shown}: no other replica is ready."
    return text


def of_node(row: Row, replicas: Iterable[Row], deployments: Iterable[Row]) -> list[Action]:
    name = str(row["name"])
    lost = losses(name, replicas, deployments)
    if row.get("state") in ("draining", "maintenance") or row.get("wish") != "serving":
        return [_resume(name), *_of_any_node(row, lost)]
    return [
        Action(
            key="D",
            title="Drain",
            role="operator",
            argv=lambda values: ["node", "drain", name, *options(values, "reason")],
            danger="confirm",
            impact=f"{lost} They move to other nodes first, where there is room.",
            fields=(_REASON,),
            done=f"{name} is being drained.",
        ),
        Action(
            key="M",
            title="Maintenance",
            role="operator",
            argv=lambda values: ["node", "maintenance", name, *options(values, "reason")],
            danger="confirm",
            impact=f"{lost} They stop now; nothing is started elsewhere before.",
            fields=(_REASON,),
            done=f"{name} is in maintenance.",
        ),
        *_of_any_node(row, lost),
    ]


def _resume(name: str) -> Action:
    return Action(
        key="R",
        title="Resume",
        role="operator",
        argv=plain("node", "resume", name),
        done=f"{name} takes replicas again.",
    )


def _of_any_node(row: Row, lost: str) -> list[Action]:
    """`lost`: what goes with it, in words."""
    name = str(row["name"])
    gone_in = Field("notice", "Gone in", default="2m", required=True, hint="90s, 2m, 1h")
    return [
        Action(
            key="E",
            title="Edit",
            role="admin",
            argv=lambda values: _updated(row, values),
            fields=(
                Field("name", "Name", default=name, required=True),
                Field("region", "Region", default=str(row.get("region", "")), required=True),
            ),
            done="Changed.",
        ),
        Action(
            key="P",
            title="Will be taken away",
            role="operator",
            argv=lambda values: [
                *("node", "drain", name, "--notice", values["notice"]),
                *options(values, "reason"),
            ],
            danger="confirm",
            impact=f"{lost} The node is emptied by then and left alone after it.",
            fields=(gone_in, _REASON),
            done=f"{name} is emptied in time.",
        ),
        Action(
            key="K",
            title="Deny certificates",
            role="admin",
            argv=plain("node", "revoke", name, "--yes"),
            danger="typed",
            type_this=name,
            impact=f"Every certificate of {name} is denied at once: its agent is not heard any"
            f" more. {lost} It comes back only with a new token.",
            done=f"The certificates of {name} are denied.",
        ),
        Action(
            key="X",
            title="Forget",
            role="admin",
            argv=plain("node", "delete", name, "--yes"),
            danger="typed",
            type_this=name,
            impact=f"{name} is taken out of the fleet. {lost}",
            done=f"{name} is forgotten.",
        ),
    ]


def _updated(row: Row, values: Values) -> list[str]:
    parts = [
        part
        for field in ("name", "region")
        if values.get(field) and values[field] != str(row.get(field, ""))
        for part in (f"--{field}", values[field])
    ]
    if not parts:
        raise ValueError("Nothing is different yet.")
    return ["node", "update", str(row["name"]), *parts]


def new_token(node: str = "") -> Action:
    return Action(
        key="N",
        title="Add a node",
        role="admin",
        argv=lambda values: ["node", "token", "create", *options(values, "node", "ttl", "address")],
        impact="Makes a token with which one machine joins. It shows what to type there, once.",
        fields=(
            Field("node", "For the node", default=node, hint="Empty: any name it gives itself."),
            Field("ttl", "Good for", default="1h", hint="30m, 1h, 1d"),
            Field(
                "address", "This host is", hint="HOST[:PORT] as nodes reach it. Empty: found out."
            ),
        ),
        shown_once="command",
    )


def of_token(row: Row) -> list[Action]:
    if row.get("state") != "unused":
        return []
    return [
        Action(
            key="X",
            title="Revoke",
            role="admin",
            argv=plain("node", "token", "revoke", str(row["id"])),
            danger="confirm",
            impact=f"Nobody joins with the token {row['id']} any more.",
            done="The token is revoked.",
        )
    ]


def new_region() -> Action:
    return Action(
        key="N",
        title="New region",
        role="admin",
        argv=lambda values: [
            *("region", "create", values["name"]),
            *options(values, "multiplier"),
        ],
        fields=(
            Field("name", "Name", required=True),
            Field("multiplier", "Price times", default="1.0", hint="0.7 is 30% less."),
        ),
        done="The region is there.",
    )


def of_region(row: Row) -> list[Action]:
    name = str(row["name"])
    now = f"{row['multiplier_bp'] / 10_000:g}"
    return [
        Action(
            key="E",
            title="Edit",
            role="admin",
            argv=lambda values: ["region", "update", name, "--multiplier", values["multiplier"]],
            impact=f"The price of {name} changes from the next request on.",
            fields=(Field("multiplier", "Price times", default=now, required=True),),
            done="Changed.",
        ),
        Action(
            key="X",
            title="Delete",
            role="admin",
            argv=plain("region", "delete", name, "--yes"),
            danger="typed",
            type_this=name,
            impact=f"The region {name} is deleted. It is refused while anything is in it.",
            done=f"{name} is deleted.",
        ),
    ]


def _burst_fields() -> tuple[Field, ...]:
    return (
        Field("gpu", "GPU", required=True, hint="H100, A100-80GB, L4 …"),
        Field("budget", "Budget", required=True, hint="For the whole burst, 100.00"),
        Field("gpus", "GPUs a node", "int", default="1"),
        Field("nodes", "Nodes", "int", default="1"),
        Field("spot", "Spot", "choice", ("prefer", "only", "never"), default="prefer"),
        Field("cloud", "Cloud", hint="Empty: every one whose account is known."),
        Field("idle", "Back when idle", hint="30m; empty: as the settings say"),
    )


_BURST_OPTIONS: Sequence[str] = ("gpu", "budget", "gpus", "nodes", "spot", "cloud", "idle")


def plan_burst() -> Action:
    return Action(
        key="V",
        title="Ask for prices",
        role="admin",
        argv=lambda values: ["burst", "plan", *options(values, *_BURST_OPTIONS)],
        impact="Nothing is launched and nothing costs anything.",
        fields=_burst_fields(),
        slow=True,
    )


def new_burst() -> Action:
    return Action(
        key="N",
        title="Lend machines",
        role="admin",
        argv=lambda values: ["burst", "up", values["name"], *options(values, *_BURST_OPTIONS)],
        danger="confirm",
        impact="Machines are launched in a cloud and cost money until they are given back, at most"
        " the budget.",
        fields=(Field("name", "Name", required=True), *_burst_fields()),
        slow=True,
        done="The machines are on their way.",
    )


def of_burst(row: Mapping[str, object]) -> list[Action]:
    if row.get("state") in ("ended", "ending"):
        return []
    name = str(row["name"])
    return [
        Action(
            key="X",
            title="Give back",
            role="admin",
            argv=plain("burst", "down", name),
            danger="typed",
            type_this=name,
            impact=f"The machines of {name} are drained and given back to their cloud.",
            slow=True,
            done=f"{name} is being given back.",
        )
    ]


def gpus_of(node: str, gpus: Iterable[Row]) -> list[Row]:
    """By index."""
    return sorted(
        (gpu for gpu in gpus if gpu.get("node") == node), key=lambda gpu: gpu.get("index", 0)
    )


def memory_share(gpu: Row) -> float | None:
    """Percent of its memory that programs hold."""
    used, whole = gpu.get("memory_used_bytes"), gpu.get("memory_total_bytes")
    return None if used is None or not whole else 100 * used / whole


def worst(gpus: Sequence[Row], field: str) -> str:
    """The largest of a figure over some GPUs."""
    told = [gpu[field] for gpu in gpus if gpu.get(field) is not None]
    return count(max(told)) if told else count(None)
