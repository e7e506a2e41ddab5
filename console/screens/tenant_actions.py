"""What can be done to tenants, environments, keys and limits, as command lines. Pure."""

from collections.abc import Sequence
from typing import Final, get_args

from appliance.wire.admin import PlanName, RoleName
from console.actions import Action, Field, Values, options, plain
from console.cells import Row
from console.words import plural

_PLANS: Final = get_args(PlanName)
_ROLES: Final = get_args(RoleName)
_LIMITS: Final = (
    ("rpm", "Requests a minute", "requests_per_min"),
    ("tpm", "Tokens a minute", "tokens_per_min"),
    ("tpd", "Tokens in 24 hours", "tokens_per_day"),
    ("concurrency", "At work at once", "concurrency"),
)


def _in_tenant(tenant: str) -> list[str]:
    return ["--tenant", tenant]


def _in_environment(row: Row) -> list[str]:
    return ["--tenant", str(row["tenant"]), "--env", str(row["environment"])]


def new_tenant() -> Action:
    return Action(
        key="N",
        title="New tenant",
        role="admin",
        argv=lambda values: ["tenant", "create", values["name"], *options(values, "plan")],
        fields=(
            Field("name", "Name", required=True, hint="Who is billed."),
            Field("plan", "Plan", "choice", _PLANS, default="enterprise"),
        ),
        done="The tenant is there. Enter opens it: an environment and a key come next.",
    )


def of_tenant(row: Row) -> list[Action]:
    """Of the row of a tenant."""
    name = str(row["name"])
    lost = f"{plural(row['environments'], 'environment')} and {plural(row['keys'], 'key')}"
    return [
        Action(
            key="E",
            title="Edit",
            role="admin",
            argv=lambda values: ["tenant", "update", name, *_changed(row, values, "name", "plan")],
            fields=(
                Field("name", "Name", default=name, required=True),
                Field("plan", "Plan", "choice", _PLANS, default=str(row["plan"])),
            ),
            done="Changed.",
        ),
        limits(name, _in_tenant(name)),
        _suspension("tenant", name, row, [], "All of its keys stop working until it is resumed."),
        Action(
            key="X",
            title="Delete",
            role="admin",
            argv=plain("tenant", "delete", name, "--cascade", "--yes"),
            danger="typed",
            type_this=name,
            impact=f"Deletes {name} with its {lost}. Its keys stop at once; what it used stays in"
            " the ledger and is billed.",
            done=f"{name} is deleted.",
        ),
    ]


def new_environment(tenant: str) -> Action:
    return Action(
        key="N",
        title="New environment",
        role="admin",
        argv=lambda values: [
            *("env", "create", values["name"], "--tenant", tenant),
            *options(values, "region", "models"),
        ],
        fields=(
            Field("name", "Name", required=True, hint="prod, staging, a team …"),
            Field("region", "Region", hint="Empty: the site's own."),
            Field("models", "Models", hint="Deployments with commas. Empty: all."),
        ),
        done="The environment is there.",
    )


def of_environment(row: Row, keys: int) -> list[Action]:
    """`keys`: how many hang on it."""
    name, tenant = str(row["name"]), str(row["tenant"])
    models = ",".join(row["models"]) if row["models"] is not None else "all"
    shown = {**row, "models": models}
    return [
        Action(
            key="E",
            title="Edit",
            role="admin",
            argv=lambda values: [
                *("env", "update", name, "--tenant", tenant),
                *_changed(shown, values, "name", "region", "models"),
            ],
            fields=(
                Field("name", "Name", default=name, required=True),
                Field("region", "Region", default=str(row["region"])),
                Field("models", "Models", default=models, hint="With commas, or all."),
            ),
            done="Changed.",
        ),
        limits(f"{tenant}/{name}", ["--tenant", tenant, "--env", name]),
        _suspension("env", name, row, _in_tenant(tenant), "Its keys stop until it is resumed."),
        Action(
            key="X",
            title="Delete",
            role="admin",
            argv=plain("env", "delete", name, "--tenant", tenant, "--cascade", "--yes"),
            danger="typed",
            type_this=name,
            impact=f"Deletes the environment {name} of {tenant} with its {plural(keys, 'key')}."
            " They stop at once.",
            done=f"{name} is deleted.",
        ),
    ]


def new_key(tenant: str, environments: Sequence[str], environment: str) -> Action:
    """`environment` is offered first."""
    return Action(
        key="N",
        title="New key",
        role="admin",
        argv=lambda values: [
            *("key", "create", "--tenant", tenant, "--env", values["env"]),
            *options(values, "name", "role", "expires"),
            *(["--test"] if values.get("test") else []),
        ],
        fields=(
            Field("env", "Environment", "choice", tuple(environments), environment, required=True),
            Field("name", "Name", hint="Empty: one is made up."),
            Field("role", "Role", "choice", _ROLES, default="developer"),
            Field("expires", "Expires", hint="A moment, or 30d from now. Empty: never."),
            Field("test", "Test key", "toggle"),
        ),
        shown_once="key",
    )


def of_key(row: Row) -> list[Action]:
    name, scope = str(row["name"]), _in_environment(row)
    whose = f"{row['tenant']}/{row['environment']}"
    expires = str(row["expires_at"] or "none")
    shown = {**row, "expires": expires}
    return [
        Action(
            key="R",
            title="Rotate",
            role="admin",
            argv=lambda values: ["key", "rotate", name, *scope, *options(values, "overlap")],
            fields=(
                Field(
                    "overlap",
                    "Old secret goes on",
                    default="24h",
                    required=True,
                    hint="0s ends it at once: for a key that leaked.",
                ),
            ),
            impact=f"Gives {name} of {whose} a new secret. Id, limits and usage stay.",
            shown_once="key",
        ),
        Action(
            key="E",
            title="Edit",
            role="admin",
            argv=lambda values: [
                *("key", "update", name, *scope),
                *_changed(shown, values, "name", "role", "expires"),
            ],
            fields=(
                Field("name", "Name", default=name, required=True),
                Field("role", "Role", "choice", _ROLES, default=str(row["role"])),
                Field("expires", "Expires", default=expires, hint="A moment, 30d, or none."),
            ),
            done="Changed.",
        ),
        limits(f"the key {name}", [*scope, "--key", name]),
        _suspension("key", name, row, scope, "Requests with it are refused until it is resumed."),
        Action(
            key="X",
            title="Revoke",
            role="admin",
            argv=plain("key", "delete", name, *scope, "--yes"),
            danger="typed",
            type_this=name,
            impact=f"Revokes {name} ({row['prefix']}) of {whose} for ever. Requests with it are"
            " refused from the next one on; what is being answered goes on to its end.",
            done=f"{name} is revoked.",
        ),
    ]


def limits(whose: str, scope: Sequence[str], *, key: str = "L", title: str = "Limits") -> Action:
    """Set limits of one layer; `scope` are the options that name it."""

    def argv(values: Values) -> list[str]:
        set_to = options(values, *(flag for flag, _, _ in _LIMITS))
        if not set_to:
            raise ValueError("Answer at least one; none takes a limit away.")
        return ["limit", "set", *scope, *set_to]

    return Action(
        key=key,
        title=title,
        role="admin",
        argv=argv,
        impact=f"Of {whose}. What is left empty stays; none takes a limit away.",
        fields=tuple(Field(flag, label, hint="") for flag, label, _ in _LIMITS),
        done="The limits are set, from the next request on.",
    )


def limit_fields() -> Sequence[tuple[str, str]]:
    """Label and name of each limit."""
    return [(label, name) for _, label, name in _LIMITS]


def _suspension(noun: str, name: str, row: Row, scope: Sequence[str], impact: str) -> Action:
    if row["state"] == "suspended":
        return Action(
            key="S",
            title="Resume",
            role="operator",
            argv=plain(noun, "resume", name, *scope),
            done=f"{name} works again.",
        )
    return Action(
        key="S",
        title="Suspend",
        role="operator",
        argv=plain(noun, "suspend", name, *scope),
        danger="confirm",
        impact=impact,
        done=f"{name} is suspended.",
    )


def _changed(row: Row, values: Values, *names: str) -> list[str]:
    """Options for what was answered differently. Raises ValueError when that is nothing."""
    parts = [
        part
        for name in names
        if values.get(name) and values[name] != str(row[name])
        for part in (f"--{name}", values[name])
    ]
    if not parts:
        raise ValueError("Nothing is different yet.")
    return parts
