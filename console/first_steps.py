"""From nothing to the first answer: the steps, and how far a site is with each. Pure.

How far it is stands nowhere: each step is read from the site itself. So it can be left at any time
and taken up by somebody else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypedDict

from appliance.wire.access import Me
from appliance.wire.checks import CheckResult
from appliance.wire.sync import EntitlementStatus
from console.cells import Row
from console.words import plural

StepName = Literal["roles", "network", "entitlement", "gpus", "model", "key", "chat"]
# done; open: to do; optional: the site works without it; pending: not known yet.
Standing = Literal["done", "open", "optional", "pending"]

_LOOPBACK: Final = ("127.", "[::1]", "localhost")


class Tables(TypedDict):
    """Tables of the live stream, by id."""

    nodes: Mapping[str, Row]
    gpus: Mapping[str, Row]
    models: Mapping[str, Row]
    deployments: Mapping[str, Row]
    tenants: Mapping[str, Row]
    environments: Mapping[str, Row]
    keys: Mapping[str, Row]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the site so far; None: not read yet."""

    tables: Tables
    site: Row | None = None
    me: Me | None = None
    entitlement: EntitlementStatus | None = None
    checks: Sequence[CheckResult] = field(default=())


@dataclass(frozen=True, slots=True)
class Step:
    """`found` is how the site is; `advice` what to do now, and why."""

    name: StepName
    title: str
    standing: Standing
    found: str
    advice: str


def steps(facts: Facts) -> tuple[Step, ...]:
    return (
        _roles(facts),
        _network(facts),
        _entitlement(facts),
        _gpus(facts),
        _model(facts),
        _key(facts),
        _chat(facts),
    )


def first_open(all_steps: Sequence[Step]) -> Step | None:
    return next((step for step in all_steps if step.standing == "open"), None)


def wanted(tables: Tables) -> bool:
    """Whether a site has nothing to answer with, or nobody who may ask."""
    return not tables["deployments"] or not tables["keys"]


def _roles(facts: Facts) -> Step:
    me = facts.me
    if me is None:
        return Step("roles", "Who may do what", "pending", "", "")
    name = me.account.partition(":")[2] or me.account
    if me.mapped:
        found = f"Groups of this host have roles; {name} is {me.role}."
        return Step("roles", "Who may do what", "done", found, "E changes the groups.")
    return Step(
        "roles",
        "Who may do what",
        "optional",
        f"No group has a role yet: who may open the admin socket is admin, as {name} is.",
        "With more than one administrator give groups of this host their roles: viewers look,"
        " operators keep it running, admins change it. E asks for the groups.",
    )


def _network(facts: Facts) -> Step:
    title = "Address and time"
    if facts.site is None:
        return Step("network", title, "pending", "", "")
    endpoint = str(facts.site.get("endpoint", ""))
    host = endpoint.partition("://")[2]
    clock = next((each for each in facts.checks if each.name.startswith("clock")), None)
    if clock is not None and clock.outcome in ("failed", "warning"):
        return Step("network", title, "open", clock.seen, f"{clock.why} {clock.fix}".strip())
    told = f"Clients reach {endpoint}." + (f" Clock: {clock.seen}" if clock else "")
    if host.startswith(_LOOPBACK):
        return Step(
            "network",
            title,
            "optional",
            told,
            "Only programs of this host can ask there. E sets another address to listen on; it is"
            " in force after the next start of the appliance.",
        )
    return Step("network", title, "done", told, "E changes where it listens.")


def _entitlement(facts: Facts) -> Step:
    title, entitlement = "Entitlement", facts.entitlement
    if entitlement is None:
        return Step("entitlement", title, "pending", "", "")
    if not entitlement.entitlement_id:
        return Step(
            "entitlement",
            title,
            "optional",
            entitlement.message or "None is installed.",
            entitlement.next_step or "I installs the file that the vendor gave you.",
        )
    ends = entitlement.expires[:10]
    left = "" if entitlement.days_left is None else f", {plural(entitlement.days_left, 'day')} left"
    found = f"{entitlement.customer}: {entitlement.stage} until {ends}{left}."
    well = entitlement.stage == "active"
    advice = entitlement.next_step or "I installs another."
    return Step("entitlement", title, "done" if well else "open", found, advice)


def _gpus(facts: Facts) -> Step:
    title, nodes, gpus = "A node and its GPUs", facts.tables["nodes"], facts.tables["gpus"]
    ready = [row for row in nodes.values() if row.get("state") in ("ready", "degraded")]
    if not ready:
        found = "No node is there." if not nodes else f"None of {plural(len(nodes), 'node')} runs."
        return Step(
            "gpus",
            title,
            "open",
            found,
            "On this host: `cic serve --with-agent`. On another: N makes a token and shows the"
            " command to type there.",
        )
    unwell = [row for row in gpus.values() if row.get("state") not in ("ok", "ready", None)]
    found = f"{plural(len(ready), 'node')} ready with {plural(len(gpus), 'GPU')}."
    if unwell:
        found += f" {plural(len(unwell), 'GPU')} not well: Enter shows the fleet."
    elif not gpus:
        found += " Models run on the processor."
    return Step("gpus", title, "done", found, "N makes a token for one more. Enter: the fleet.")


def _model(facts: Facts) -> Step:
    title, deployments = "A first model", facts.tables["deployments"]
    ready = [row for row in deployments.values() if row.get("state") == "ready"]
    if ready:
        found = f"{', '.join(sorted(str(row['name']) for row in ready)[:3])}: ready."
        return Step("model", title, "done", found, "N deploys another. Enter: the models.")
    if deployments:
        row = next(iter(deployments.values()))
        found = f"{row.get('name')}: {row.get('state')}. {row.get('reason') or ''}".strip()
        return Step("model", title, "open", found, "Wait until it is ready. Enter: why it is not.")
    models = facts.tables["models"]
    found = f"{plural(len(models), 'model')} registered, none deployed." if models else "None."
    return Step(
        "model",
        title,
        "open",
        found,
        "I imports a model pack from a stick; N deploys a model that is registered, a .gguf file"
        " or a folder with safetensors on this host.",
    )


def _key(facts: Facts) -> Step:
    title, tables = "A tenant with a key", facts.tables
    active = [row for row in tables["keys"].values() if row.get("state") == "active"]
    if active:
        row = active[0]
        found = f"{plural(len(active), 'key')}, such as {row.get('tenant')}/{row.get('name')}."
        return Step("key", title, "done", found, "N makes another. Enter: the tenants.")
    if not tables["tenants"]:
        return Step("key", title, "open", "No tenant yet.", "N makes a tenant: who is billed.")
    tenant = next(iter(tables["tenants"].values())).get("name")
    if not tables["environments"]:
        advice = "N makes an environment in it: prod, staging, a team."
        return Step("key", title, "open", f"The tenant {tenant} has no environment.", advice)
    advice = "N makes a key. Its secret is shown once."
    return Step("key", title, "open", f"The tenant {tenant} has no key that works.", advice)


def _chat(facts: Facts) -> Step:
    title, site = "A first question", facts.site
    if site is None:
        return Step("chat", title, "pending", "", "")
    records = int(site.get("records") or 0)
    if records:
        found = f"{plural(records, 'request')} answered and in the ledger."
        return Step("chat", title, "done", found, "Enter: the chat.")
    ready = any(row.get("state") == "ready" for row in facts.tables["deployments"].values())
    advice = "Enter opens the chat." if ready else "First a model must be ready."
    return Step("chat", title, "open", "Nothing was asked yet.", advice)
