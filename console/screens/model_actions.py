"""What can be done to models, packs and deployments, as command lines. Pure."""

from collections.abc import Sequence
from typing import Final, get_args

from appliance.wire.fleet import EngineName, Strategy
from console.actions import Action, Field, Values, plain
from console.cells import Row
from console.words import plural, size

_ENGINES: Final = get_args(EngineName)
_STRATEGIES: Final = get_args(Strategy)
_STRATEGY_HINT: Final = (
    "surge: the new one serves before the old one goes; recreate: one after the other."
)
# Field of the forms -> the option of `cic deployment`, of those that go in as they are answered.
_OPTIONS: Final = {
    "model": "--model",
    "replicas": "--replicas",
    "gpus": "--gpus",
    "context": "--context",
    "parallel": "--parallel",
    "strategy": "--strategy",
    "pins": "--pin",
    "idle": "--idle-unload",
    "arguments": "--arguments",
    "url": "--url",
    "upstream": "--upstream-model",
}


def _options(values: Values, *names: str) -> list[str]:
    return [part for name in names if values.get(name) for part in (_OPTIONS[name], values[name])]


def new_deployment(models: Sequence[str], model: str = "") -> Action:
    """`models` are the names that are registered; `model` is offered first."""

    def argv(values: Values) -> list[str]:
        external = values.get("engine") == "external"
        if external and not values.get("url"):
            raise ValueError("An external engine needs its URL.")
        if not external and not values.get("model"):
            raise ValueError("Name a model, or a path on the appliance's host.")
        source = ("url", "upstream") if external else ("model", "gpus", "arguments")
        return [
            *("deployment", "create", "--name", values["name"], "--engine", values["engine"]),
            *_options(values, *source, "replicas", "context", "parallel"),
            *_options(values, "strategy", "pins", "idle"),
            *(["--api-key", "-"] if external and values.get("api_key") else []),
            *(["--embedding"] if values.get("embedding") else []),
        ]

    return Action(
        key="N",
        title="Deploy",
        role="admin",
        argv=argv,
        stdin="api_key",
        impact="Clients write its name as `model`. Empty: no GPUs, 4096 tokens of context, 4"
        " requests at once, any node, never unloaded. Nodes go with commas.",
        fields=(
            Field("name", "Name", default=model, required=True),
            Field("engine", "Engine", "choice", _ENGINES, default="vllm"),
            Field("model", "Model, or its path", choices=tuple(models), default=model),
            Field("replicas", "Replicas", "int", default="1", required=True),
            Field("gpus", "GPUs of one replica", "int"),
            Field("context", "Context, tokens", "int"),
            Field("parallel", "Requests at once", "int"),
            Field("pins", "Only on nodes"),
            Field("strategy", "Strategy", "choice", _STRATEGIES, "auto", hint=_STRATEGY_HINT),
            Field("idle", "Unload after, s", "int"),
            Field("embedding", "Makes embeddings", "toggle"),
            Field("arguments", "Engine's arguments"),
            Field("url", "URL", hint="external: of an engine that runs elsewhere."),
            Field("upstream", "Its name there", hint="external: where that is another."),
            Field("api_key", "Its API key", "secret", hint="external: where it wants one."),
        ),
        done="It is deployed. Its state says how far it is.",
    )


def of_deployment(row: Row, allowed_by: int) -> list[Action]:
    """Of the row of a deployment. `allowed_by`: environments that name it among their models."""
    name = str(row["name"])
    return [
        _update(name, row),
        _suspension(name, row),
        Action(
            key="X",
            title="Delete",
            role="admin",
            argv=plain("deployment", "delete", name, "--yes"),
            danger="typed",
            type_this=name,
            impact=f"Deletes {name} and ends its {plural(row['replicas_wanted'], 'replica')}."
            f" {_busy(row)} {_named(allowed_by)} Its model stays.",
            done=f"{name} is deleted; what it answers now goes on to its end.",
        ),
    ]


def _update(name: str, row: Row) -> Action:
    shown = {
        "replicas": str(row["replicas_wanted"]),
        "strategy": str(row["strategy"]),
        "pins": ",".join(row["pins"]),
        "idle": "" if row["idle_s"] is None else str(row["idle_s"]),
    }

    def argv(values: Values) -> list[str]:
        changed: list[str] = []
        for field, before in shown.items():
            now = values.get(field, "")
            if now != before:
                changed += [_OPTIONS[field], now or ("0" if field == "idle" else "")]
        changed += _options(values, "model", "gpus", "context", "parallel")
        if not changed:
            raise ValueError("Nothing is different yet.")
        return ["deployment", "update", name, *changed]

    return Action(
        key="E",
        title="Scale/edit",
        role="admin",
        argv=argv,
        impact=f"{name}: {row['replicas_ready']} of {plural(row['replicas_wanted'], 'replica')}"
        f" ready. {_busy(row)} What is other than their number replaces them by the strategy, while"
        " requests go on to their end. Weights, GPUs and what follows stay where left empty.",
        fields=(
            Field("replicas", "Replicas", "int", default=shown["replicas"], required=True),
            Field("strategy", "Strategy", "choice", _STRATEGIES, shown["strategy"]),
            Field("pins", "Only on nodes", default=shown["pins"]),
            Field("idle", "Unload after, s", "int", default=shown["idle"]),
            Field("model", "Other weights"),
            Field("gpus", "GPUs of one replica", "int"),
            Field("context", "Context, tokens", "int"),
            Field("parallel", "Requests at once", "int"),
        ),
        done="Changed. Its replicas follow by the strategy.",
    )


def _suspension(name: str, row: Row) -> Action:
    if row["state"] == "suspended":
        return Action(
            key="R",
            title="Resume",
            role="operator",
            argv=plain("deployment", "resume", name),
            done=f"{name} loads again.",
        )
    return Action(
        key="S",
        title="Suspend",
        role="operator",
        argv=plain("deployment", "suspend", name),
        danger="confirm",
        impact=f"Unloads the engines of {name}. {_busy(row)} What is being answered goes on to its"
        " end; new requests are refused until it is resumed.",
        done=f"{name} is suspended.",
    )


def _busy(row: Row) -> str:
    running, queued = row["requests_running"] or 0, row["requests_queued"] or 0
    return f"{plural(running, 'request')} running and {queued} waiting now."


def _named(allowed_by: int) -> str:
    if not allowed_by:
        return "No environment names it among its models."
    return f"{plural(allowed_by, 'environment')} {'names' if allowed_by == 1 else 'name'} it."


def of_model(row: Row, used_by: Sequence[str]) -> list[Action]:
    """`used_by`: names of the deployments of it."""
    name = str(row["name"])
    using = f"It is deployed as {', '.join(used_by)}." if used_by else "Nothing is deployed of it."
    suspended = row["state"] == "suspended"
    shown = {each: str(row[each]) for each in ("name", "family", "licence")}

    def update(values: Values) -> list[str]:
        changed = [
            part
            for each, before in shown.items()
            if values.get(each, "") != before
            for part in (f"--{each}", values.get(each, ""))
        ]
        if not changed:
            raise ValueError("Nothing is different yet.")
        return ["model", "update", name, *changed]

    verb = "resume" if suspended else "suspend"
    return [
        Action(
            key="E",
            title="Edit",
            role="admin",
            argv=update,
            fields=(
                Field("name", "Name", default=name, required=True),
                Field("family", "Family", default=shown["family"]),
                Field("licence", "Licence", default=shown["licence"]),
            ),
            done="Changed.",
        ),
        Action(
            key="R" if suspended else "S",
            title=verb.capitalize(),
            role="operator",
            argv=plain("model", verb, name),
            danger="none" if suspended else "confirm",
            impact="" if suspended else f"{using} Requests to it are refused until it is resumed.",
            done=f"{name} {'serves again' if suspended else 'is suspended'}.",
        ),
        Action(
            key="X",
            title="Delete",
            role="admin",
            argv=plain("model", "delete", name, "--yes"),
            danger="typed",
            type_this=name,
            impact=f"Forgets {name} ({size(row['size_bytes'])}). {using} It is refused while one"
            " is. Its files stay until `cic model gc`.",
            done=f"{name} is no more.",
        ),
    ]


def register_model() -> Action:
    return Action(
        key="A",
        title="Add files",
        role="admin",
        argv=lambda values: [
            *("model", "create", *([values["name"]] if values.get("name") else [])),
            *("--path", values["path"]),
            *(["--family", values["family"]] if values.get("family") else []),
            *(["--licence", values["licence"]] if values.get("licence") else []),
        ],
        impact="Registers a model where it is, on the appliance's host. It is read and hashed.",
        fields=(
            Field("path", "Path", "path", required=True, hint="A .gguf file, or a folder."),
            Field("name", "Name", hint="Empty: the file's."),
            Field("family", "Family"),
            Field("licence", "Licence"),
        ),
        slow=True,
        done="The model is registered. N deploys it.",
    )


def import_pack(path: str = "", publisher: str = "", licence: str = "") -> Action:
    """`publisher`: the key that signed, where the site does not trust it yet; `licence`: the name
    of one that was shown and is to be accepted."""
    asked: list[Field] = []
    if publisher:
        asked.append(Field("trust", "Trust that publisher", "toggle"))
    if licence:
        asked.append(Field("accept", "Accept the licence", "toggle", hint=licence))
    if not path:
        asked.append(Field("accept", "Accept its licence", "toggle"))
        asked.append(Field("key", "Trust the publisher", hint="Id of the key, 64 hex digits."))

    def argv(values: Values) -> list[str]:
        trusted = publisher if values.get("trust") else values.get("key", "")
        return [
            *("model", "import", values["path"]),
            *(["--name", values["name"]] if values.get("name") else []),
            *(["--accept-licence"] if values.get("accept") else []),
            *(["--publisher", trusted] if trusted else []),
        ]

    impact = (
        "Copies the pack into the site's store, verified; goes on with what was interrupted."
        " Without a name here it has the pack's."
    )
    if publisher:
        impact += (
            " Trust its key only if the publisher told you this very one on another way:"
            f" {publisher}"
        )
    return Action(
        key="I",
        title="Import pack",
        role="admin",
        argv=argv,
        impact=impact,
        fields=(
            Field("path", "Pack", "path", default=path, required=True),
            Field("name", "Name here"),
            *asked,
        ),
        slow=True,
        done="The model is in the store. N deploys it.",
    )


def sweep() -> Action:
    return Action(
        key="G",
        title="Sweep store",
        role="admin",
        argv=plain("model", "gc"),
        danger="confirm",
        impact="Removes from the store what no registered model needs.",
    )
