"""What each step of an installation does. Each may be begun again after it was cut short."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from installer.answers import Answers
from installer.bundle import verify
from installer.errors import StepFailed
from installer.first_model import bring_model
from installer.layout import AGENT_ACCOUNT, COMMANDS, GATEWAY_ACCOUNT, Layout
from installer.product import ProductRefused
from installer.programs import account_of, find, group_of, must, run
from installer.records import Made
from installer.units import enable, lay_units, listen_elsewhere
from installer.work import Work, account_in, units_in

_SYSUSERS = """\
g {gateway} -
u {gateway} -:{gateway} "CrossLogic gateway" {gateway_home} /usr/sbin/nologin
"""
_SYSUSERS_AGENT = """\
g {agent} -
u {agent} -:{agent} "CrossLogic agent" {agent_home} /usr/sbin/nologin
"""


def make_accounts(work: Work) -> None:
    layout = work.layout
    names = {GATEWAY_ACCOUNT: layout.home}
    if work.with_agent:
        names[AGENT_ACCOUNT] = layout.agent_home
    if not layout.is_this_system:
        text = _SYSUSERS + (_SYSUSERS_AGENT if work.with_agent else "")
        words = {
            "gateway": GATEWAY_ACCOUNT,
            "agent": AGENT_ACCOUNT,
            "gateway_home": layout.inside(layout.home),
            "agent_home": layout.inside(layout.agent_home),
        }
        work.make.file(layout.accounts_file, text.format(**words).encode(), 0o644)
        work.notes.append(
            f"No accounts were made: {layout.root} is another system's root. Its systemd makes "
            "them at boot (systemd-sysusers), and the units take over their folders."
        )
        return
    for name, home in names.items():
        make_account(work, name, home)


def make_account(work: Work, name: str, home: Path) -> None:
    fix = f"Make the account {name} by the means of this host, then run this again."
    if group_of(name) is None:
        work.manifest.note(f"group:{name}", Made("account", target=name))
        must(["groupadd", "--system", name], next_step=fix)
    if account_of(name) is None:
        shell = "/usr/sbin/nologin" if Path("/usr/sbin/nologin").exists() else "/sbin/nologin"
        work.manifest.note(f"user:{name}", Made("account", target=name))
        words = ["--home-dir", str(home), "--no-create-home", "--shell", shell]
        must(
            ["useradd", "--system", "--gid", name, *words, "-c", "CrossLogic", name], next_step=fix
        )


def unpack_tree(work: Work) -> None:
    target = work.layout.version(work.bundle.version)
    total, told_percent = _size(work.bundle.tree), 0
    work.make.folder(work.layout.versions, 0o755)
    for copied in work.make.tree(work.bundle.tree, target, work.bundle.version):
        percent = copied * 100 // max(total, 1)
        if percent >= told_percent + 20:
            told_percent = percent
            work.tell(f"{percent} % of {total / 1e6:.0f} MB")
    label_for_selinux(work.layout)
    work.product.version()  # it runs, before anything else is made


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def label_for_selinux(layout: Layout) -> None:
    """Where SELinux is on, programs without a label are refused when systemd starts them."""
    restorecon = find("restorecon")
    if layout.is_this_system and Path("/sys/fs/selinux/enforce").exists() and restorecon:
        run([restorecon, "-RF", str(layout.versions)])


def unpack_engine(work: Work) -> None:
    """llama.cpp beside the versions: each finds it by a .pth file, and upgrades keep it."""
    source = Path(work.answers.engine_llamacpp)
    verify(source, work.bundle.key)
    target = work.layout.versions / "engines" / "llamacpp"
    work.make.folder(target.parent, 0o755)
    work.manifest.note(target, Made("tree"))
    # A folder that is there may be of an older bundle: it is replaced whole.
    from installer.files import copy_tree  # noqa: PLC0415 (a step that is seldom asked for)
    from installer.removal import remove_tree  # noqa: PLC0415

    remove_tree(target)
    for _ in copy_tree(source / "tree/llamacpp", target):
        pass
    point_to_engines(work)


def point_to_engines(work: Work) -> None:
    """Tells a version's interpreter where engines are."""
    engines = work.layout.versions / "engines" / "llamacpp"
    if not engines.is_dir():
        return
    version = work.layout.version(work.bundle.version)
    for site in sorted(version.glob("python/lib/python3.*/site-packages")):
        ups = "../" * (len(site.relative_to(work.layout.versions).parts))
        line = f"{ups}engines/llamacpp\n"
        work.make.file(site / "crosslogic-engines.pth", line.encode(), 0o644)


def make_folders(work: Work) -> None:
    layout = work.layout
    gateway = account_in(layout, GATEWAY_ACCOUNT)
    work.make.folder(
        layout.config, 0o750, kind="data", group=gateway.gid if gateway is not None else None
    )
    for folder in (layout.home, layout.logs, layout.run):
        work.make.folder(folder, 0o750, kind="data", account=gateway)
    if work.with_agent:
        agent = account_in(layout, AGENT_ACCOUNT)
        work.make.folder(layout.agent_home, 0o750, kind="data", account=agent)


def write_settings(work: Work) -> None:
    if work.layout.config_file.exists() and not work.manifest.has(work.layout.config_file):
        return
    gateway = account_in(work.layout, GATEWAY_ACCOUNT)
    group = gateway.gid if gateway is not None else None
    for name, source in _branding(work.answers).items():
        content = _read(source)
        work.make.file(work.layout.config / name, content, 0o640, kind="settings", group=group)
    text = settings_text(work.answers, work.layout)
    if not work.make.file(
        work.layout.config_file, text.encode(), 0o640, kind="settings", group=group
    ):
        work.notes.append(f"{work.layout.config_file} was changed by somebody and is kept.")


def _branding(answers: Answers) -> dict[str, str]:
    named = {"branding": answers.branding_file, "branding.pem": answers.branding_publisher}
    return {name: source for name, source in named.items() if source}


def _read(source: str) -> bytes:
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise StepFailed(
            f"{source} cannot be read: {error.strerror}.",
            next_step="Correct the answers, and run this again: it goes on where it stopped.",
        ) from error


def settings_text(answers: Answers, layout: Layout) -> str:
    """The settings that a site begins with. Strings of JSON are strings of TOML."""
    tables: dict[str, dict[str, object]] = {
        "site": {"name": answers.site_name, "region": answers.site_region},
        "gateway": {"listen": answers.endpoint_listen},
        "access": {
            "viewers": list(answers.access_viewers),
            "operators": list(answers.access_operators),
            "admins": list(answers.access_admins),
        },
    }
    if answers.branding_file:
        tables["branding"] = {
            "file": layout.inside(layout.config / "branding"),
            "publisher": layout.inside(layout.config / "branding.pem"),
        }
    lines = [
        "# Settings of this site. docs/SETTINGS.md lists all of them with their defaults;",
        "# a variable CIC_<TABLE>_<NAME> in the environment goes before this file.",
    ]
    for name, table in tables.items():
        rows = [f"{key} = {json.dumps(value)}" for key, value in table.items() if value]
        if rows:
            lines += ["", f"[{name}]", *rows]
    return "\n".join(lines) + "\n"


def make_site(work: Work) -> None:
    work.product.ask("init")


def make_certificate(work: Work) -> None:
    """By the product's own command; a version without it serves plain HTTP alone, and says so."""
    if not work.product.offers("certificate", "endpoint"):
        work.notes.append(
            f"Version {work.bundle.version} has no TLS at its endpoint: it serves plain HTTP. "
            "Where the LAN is not trusted, put a proxy with TLS before it."
        )
        return
    work.notes.append(
        "No certificate was made yet for the endpoint: see cic certificate endpoint --help."
    )


def link_commands(work: Work) -> None:
    layout = work.layout
    work.make.link(layout.current, work.bundle.version)
    for name in COMMANDS:
        work.make.link(layout.command(name), f"/opt/crosslogic/current/bin/{name}")


def put_units(work: Work) -> None:
    folder = work.layout.version(work.bundle.version) / "systemd"
    for kept in lay_units(work.make, work.layout, folder):
        work.notes.append(f"{kept} was changed by somebody and is kept.")
    listen_elsewhere(work.make, work.layout, folder, work.answers.endpoint_listen)
    if work.answers.start:
        enable(work.make, work.layout, folder, units_in(folder, work.answers.role))
    if work.services.is_systemd:
        work.services.reload()


def start_services(work: Work) -> None:
    work.services.start(work.product)


def make_tenant(work: Work) -> None:
    answers = work.answers
    _of_site(work, "tenant", "create", answers.tenant_name)
    _of_site(work, "env", "create", answers.tenant_environment, "--tenant", answers.tenant_name)


def _of_site(work: Work, *words: str) -> None:
    start_services(work)
    work.product.makes(*words)


def make_key(work: Work) -> None:
    """The secret is told once and kept nowhere. A key whose secret nobody saw is made anew."""
    answers = work.answers
    start_services(work)
    where = ["--tenant", answers.tenant_name, "--env", answers.tenant_environment]
    create = ["key", "create", *where, "--name", answers.tenant_key]
    made = work.product.makes(*create)
    if made is None:
        work.product.ask("key", "delete", answers.tenant_key, *where, "--yes")
        made = work.product.ask(*create)
    work.key = str(made["key"])
    if answers.tenant_key_file:
        from installer.files import write_whole  # noqa: PLC0415 (where a file was asked for)

        write_whole(Path(answers.tenant_key_file), (work.key + "\n").encode(), 0o600)


def make_model(work: Work) -> None:
    start_services(work)
    try:
        work.models = (bring_model(work),)
    except ProductRefused as refused:
        raise StepFailed(refused.message, next_step=refused.next_step) from refused


ACTS: Mapping[str, Callable[[Work], None]] = {
    "accounts": make_accounts,
    "tree": unpack_tree,
    "engine": unpack_engine,
    "folders": make_folders,
    "settings": write_settings,
    "site": make_site,
    "certificate": make_certificate,
    "commands": link_commands,
    "units": put_units,
    "start": start_services,
    "model": make_model,
    "tenant": make_tenant,
    "key": make_key,
}
