"""What an installation is going to do, decided from the answers and from what is there.

Pure: nothing is looked at and nothing is done here. The plan is shown as it is, in words or as
JSON; `install_steps` has for each name what carries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

from installer.answers import Answers
from installer.layout import AGENT_ACCOUNT, GATEWAY_ACCOUNT


@dataclass(frozen=True, slots=True)
class Found:
    """What is there, as far as the plan asks."""

    version: str
    """Of the bundle."""
    root: str = "/"
    systemd: bool = False
    """It runs here, and the bundle has units."""
    units: bool = False
    accounts: bool = False
    tree: bool = False
    config: bool = False
    site: bool = False
    runs: bool = False
    engine: str = ""
    """The bundle with llama.cpp, named or found beside; empty: none."""
    model: str = ""
    """The first model, named or found beside; empty: none."""
    done: Mapping[str, str] = field(default_factory=dict)
    """Steps of an earlier run with digests of what they were told."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. `told` is a digest of what it depends on: other answers do it again."""

    name: str
    does: str
    undo: str
    done: bool
    told: str


@dataclass(frozen=True, slots=True)
class _Draft:
    name: str
    does: str
    undo: str
    depends_on: tuple[object, ...] = ()
    there: bool = True
    """What a done step has made is still there."""


Writer = Callable[[Answers, Found], _Draft | None]


def plan_install(answers: Answers, found: Found) -> list[Step]:
    """Every step in its order; one that is done already says so and is left out when applied."""
    drafts = [write(answers, found) for write in _WRITERS]
    return [_step(draft, found) for draft in drafts if draft is not None]


def _step(draft: _Draft, found: Found) -> Step:
    told = sha256(repr((draft.name, draft.depends_on)).encode()).hexdigest()[:16]
    done = draft.there and found.done.get(draft.name) == told
    return Step(draft.name, draft.does, draft.undo, done, told)


def _accounts(answers: Answers, found: Found) -> _Draft:
    names = _account_names(answers)
    if found.root != "/":
        return _Draft(
            "accounts",
            f"Write the system accounts {' and '.join(names)} into /usr/lib/sysusers.d: they are "
            "made when that system boots.",
            "The file is removed.",
            names,
        )
    return _Draft(
        "accounts",
        f"Make the system accounts {' and '.join(names)}, without a password and without a shell.",
        "Accounts that were made here are removed.",
        names,
        found.accounts,
    )


def _account_names(answers: Answers) -> tuple[str, ...]:
    if answers.role == "gateway":
        return (GATEWAY_ACCOUNT,)
    return (GATEWAY_ACCOUNT, AGENT_ACCOUNT)


def _tree(_: Answers, found: Found) -> _Draft:
    return _Draft(
        "tree",
        f"Unpack version {found.version} into /opt/crosslogic/{found.version}.",
        "The folder is removed.",
        (found.version,),
        found.tree,
    )


def _engine(answers: Answers, found: Found) -> _Draft | None:
    if answers.role == "gateway" or not found.engine:
        return None
    return _Draft(
        "engine",
        f"Check the bundle {found.engine} and unpack llama.cpp into /opt/crosslogic/engines.",
        "The folder is removed.",
        (found.engine, found.version),
    )


def _folders(answers: Answers, _: Found) -> _Draft:
    agent = "" if answers.role == "gateway" else " /var/lib/crosslogic-agent,"
    return _Draft(
        "folders",
        f"Make /etc/crosslogic, /var/lib/crosslogic,{agent} /var/log/crosslogic and "
        "/run/crosslogic, closed to others.",
        "They are removed, unless they were there before.",
        (answers.role,),
    )


def _settings(answers: Answers, found: Found) -> _Draft:
    does = (
        f'Write /etc/crosslogic/config.toml: site "{answers.site_name}", endpoint on '
        f"{answers.endpoint_listen}."
    )
    if found.config:
        does = "Keep /etc/crosslogic/config.toml as it is."
    return _Draft(
        "settings", does, "The file is removed, unless somebody changed it.", (), found.config
    )


def _site(_: Answers, found: Found) -> _Draft:
    does = "Make the site: secrets, the site's CA, an empty registry and ledger."
    if found.site:
        does = "Complete the site that is in /var/lib/crosslogic; nothing of it is replaced."
    return _Draft("site", does, "Secrets and databases are removed.", (found.version,), found.site)


def _certificate(answers: Answers, _: Found) -> _Draft | None:
    does = {
        "own": f"Make a certificate by the site's CA for {_names(answers)}.",
        "files": f"Take the certificate {answers.endpoint_certificate} and its key.",
        "csr": f"Write a request for a certificate for {_names(answers)}, to be signed.",
    }.get(answers.endpoint_tls)
    if does is None:
        return None
    depends = (answers.endpoint_tls, answers.endpoint_names, answers.endpoint_certificate)
    return _Draft(
        "certificate",
        f"{does} TLS listens on {answers.endpoint_tls_listen}.",
        "Certificate and key are removed with the site.",
        depends,
    )


def _names(answers: Answers) -> str:
    return ", ".join(answers.endpoint_names) or "the names and addresses of this host"


def _commands(_: Answers, found: Found) -> _Draft:
    return _Draft(
        "commands",
        f"Point /opt/crosslogic/current to {found.version}, and link cic and cic-installer into "
        "/usr/bin.",
        "The links are removed.",
        (found.version,),
    )


def _units(answers: Answers, found: Found) -> _Draft | None:
    if not found.units:
        return None
    enabled = ", and enable them" if answers.start else ""
    return _Draft(
        "units",
        f"Put the units of systemd into /usr/lib/systemd/system{enabled}.",
        "Units and their links are removed.",
        (found.version, answers.role, answers.start),
    )


def _start(answers: Answers, found: Found) -> _Draft | None:
    if not answers.start:
        return None
    does = "Start the services and wait until the endpoint answers."
    if not found.systemd:
        does = (
            "Start the appliance for the following steps; without systemd it is stopped at the end."
        )
    return _Draft("start", does, "The services are stopped.", (found.version,), found.runs)


def _model(answers: Answers, found: Found) -> _Draft | None:
    if not answers.start or answers.role == "gateway" or not found.model:
        return None
    return _Draft(
        "model",
        f"Bring the model {found.model} to the site, deploy it with {answers.model_engine} and "
        "wait until it answers.",
        "Model and deployment are removed with the site.",
        (found.model, answers.model_name, answers.model_engine, answers.model_gpus),
    )


def _tenant(answers: Answers, _: Found) -> _Draft | None:
    if not answers.start or not answers.tenant_name:
        return None
    return _Draft(
        "tenant",
        f"Make the tenant {answers.tenant_name} with the environment {answers.tenant_environment}.",
        "Both are removed with the site.",
        (answers.tenant_name, answers.tenant_environment),
    )


def _key(answers: Answers, _: Found) -> _Draft | None:
    if not answers.start or not answers.tenant_name or not answers.tenant_key:
        return None
    where = f"write it to {answers.tenant_key_file}" if answers.tenant_key_file else "show it once"
    return _Draft(
        "key",
        f"Make the API key {answers.tenant_key} and {where}.",
        "The key is removed with the site.",
        (answers.tenant_name, answers.tenant_environment, answers.tenant_key),
    )


_WRITERS: Sequence[Writer] = (
    _accounts, _tree, _engine, _folders, _settings, _site, _certificate, _commands, _units,
    _start, _model, _tenant, _key,
)  # fmt: skip


def as_text(steps: Sequence[Step], found: Found) -> str:
    """A numbered plan. What is done already is marked so."""
    where = "" if found.root == "/" else f" below {found.root}"
    lines = [f"Version {found.version} is going to be installed{where}:", ""]
    for number, step in enumerate(steps, 1):
        mark = "done" if step.done else ""
        lines.append(f"{number:3}. {mark:<5}{step.does}")
    lines += [
        "",
        "Each step can be undone: cic-installer uninstall, or install --undo before the end.",
    ]
    return "\n".join(lines)


def as_json(steps: Sequence[Step], found: Found) -> dict[str, Any]:
    rows = [{key: value for key, value in asdict(step).items() if key != "told"} for step in steps]
    return {"version": found.version, "root": found.root, "steps": rows}
