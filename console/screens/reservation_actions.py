"""What can be done about reserved capacity, as command lines. Pure."""

from collections.abc import Sequence

from console.actions import Action, Field, Values, options, plain
from console.cells import Row
from console.words import count


def reserve(tenant: str = "", models: Sequence[str] = (), *, key: str = "N") -> Action:
    """For the tenant, or for one that the form asks for."""

    def argv(values: Values) -> list[str]:
        whose = tenant or values["tenant"]
        chosen = options(values, "env", "from", "until", "priority")
        return ["reservation", "create", whose, values["model"], values["rate"], *chosen]

    model = Field("model", "Model", required=True, hint="The deployment's name.")
    if models:
        model = Field("model", "Model", "choice", tuple(models), default=models[0], required=True)
    fields = (
        model,
        Field("rate", "Tokens a second", "int", required=True),
        Field("env", "Environment", hint="Empty: all of the tenant's."),
        Field("from", "From", hint="Empty: now. 12h, 7d, 2026-12-01."),
        Field("until", "Until", hint="Empty: no end."),
        Field("priority", "Priority", "int", hint="0 to 100; the higher goes first."),
    )
    return Action(
        key=key,
        title="Reserve",
        role="admin",
        argv=argv,
        fields=fields if tenant else (Field("tenant", "Tenant", required=True), *fields),
        impact="Keeps so many tokens a second of a model, whatever others ask. What is not used is"
        " everybody's.",
        done="Reserved.",
    )


def of_reservation(row: Row) -> list[Action]:
    """Of the row of a reservation."""
    ref, whose = str(row["id"]), whose_it_is(row)
    what = f"{count(row['tokens_per_s'])} tokens/s of {row['model']}"

    def changed(values: Values) -> list[str]:
        before = {
            "tokens-per-s": str(row["tokens_per_s"]),
            "priority": str(row["priority"]),
            "until": str(row["ends_at"] or ""),
        }
        told = {name: value for name, value in values.items() if value != before.get(name)}
        return ["reservation", "update", ref, *options(told, *before)]

    return [
        Action(
            key="E",
            title="Edit",
            role="admin",
            argv=changed,
            fields=(
                Field(
                    *("tokens-per-s", "Tokens a second", "int"),
                    default=str(row["tokens_per_s"]),
                    required=True,
                ),
                Field("priority", "Priority", "int", default=str(row["priority"])),
                Field("until", "Until", default=str(row["ends_at"] or ""), hint="never: no end."),
            ),
            done="Changed.",
        ),
        Action(
            key="X",
            title="End",
            role="admin",
            argv=plain("reservation", "end", ref),
            danger="confirm",
            impact=f"{whose} loses its promise of {what}. Its requests go on, and wait as"
            " everybody's.",
            done="The reservation has ended.",
        ),
    ]


def whose_it_is(row: Row) -> str:
    return f"{row['tenant']}/{row['environment']}" if row.get("environment") else str(row["tenant"])
