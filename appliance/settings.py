"""Frozen settings, read once: a TOML file, then CIC_<SECTION>_<NAME> from the environment.

The tables below are the reference: docs/SETTINGS.md is checked against them by a test.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from appliance.domain.errors import CrossLogicError


class SettingsError(CrossLogicError):
    code = "bad_settings"


# A year at most: timers do not take infinity.
Positive = Annotated[float, msgspec.Meta(gt=0, le=365 * 86_400)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file. An unknown name is an error: it is a typing mistake."""


class Site(Section, frozen=True):
    name: str = "site"
    region: str = "local"  # the region of this appliance; environments are pinned to one


class Access(Section, frozen=True):
    """Unix groups of the host by role. None named at all: who may open the socket is an admin."""

    viewers: tuple[str, ...] = ()  # may read
    operators: tuple[str, ...] = ()  # and suspend, resume, drain, scale, exchange
    admins: tuple[str, ...] = ()  # and everything else; root and the serving account always


class Gateway(Section, frozen=True):
    listen: str = "0.0.0.0:8080"
    body_bytes_max: Count = 16 * 1024 * 1024
    json_depth_max: Count = 64
    messages_max: Count = 4_096
    connections_max: Count = 8_192
    connections_per_peer_max: Count = 4_096
    header_bytes_max: Count = 32 * 1024
    upstream_connections_idle_max: Count = 256  # kept open to one replica between requests
    owned_by: str = "crosslogic"  # in /v1/models


class Timeouts(Section, frozen=True):
    head_s: Positive = 10.0  # from the first byte of a request to the end of its head
    body_s: Positive = 60.0  # from the head to the end of the body
    keepalive_s: Positive = 75.0  # an idle kept-alive connection
    connect_s: Positive = 3.0  # to an engine
    first_token_s: Positive = 300.0  # from the engine's connection to its first byte of answer
    token_gap_s: Positive = 60.0  # between two pieces of a stream
    total_s: Positive = 3_600.0  # of one request
    write_s: Positive = 60.0  # a client that takes nothing
    drain_s: Positive = 30.0  # streams in flight, at SIGTERM


class Limiting(Section, frozen=True):
    requests_per_min: Count | None = None  # the global layer
    tokens_per_min: Count | None = None
    tokens_per_day: Count | None = None
    concurrency: Count | None = None


class Scheduling(Section, frozen=True):
    queue_length_max: Annotated[int, msgspec.Meta(ge=0)] = 512  # of one deployment
    queue_wait_s: Positive = 30.0
    tries: Count = 3  # replicas tried before the first byte
    eject_after_failures: Count = 3  # in a row
    eject_s: Positive = 5.0  # the first time; doubles up to eject_s_max
    eject_s_max: Positive = 120.0
    requests_per_replica_max: Count = 4_096  # in flight, where an engine does not tell its slots
    headroom_percent: Annotated[int, msgspec.Meta(ge=0, le=95)] = 20  # never promised


class Fleet(Section, frozen=True):
    heartbeat_s: Positive = 1.0
    node_lost_s: Positive = 10.0  # without a heartbeat
    drain_s: Positive = 120.0  # for requests of a replica that is replaced, moved or removed
    probe_s: Positive = 5.0  # between two probes of an external engine


class Nodes(Section, frozen=True):
    listen: str | None = None  # "HOST:PORT" of the node API; none: it opens with the first token
    advertise: str | None = None  # HOST or HOST:PORT under which nodes reach this host
    certificate_s: Annotated[float, msgspec.Meta(ge=60, le=30 * 86_400)] = 86_400.0  # its life
    rejoin_grace_s: Annotated[float, msgspec.Meta(ge=0, le=365 * 86_400)] = 604_800.0  # after it
    copy_bytes_per_s: Count | None = None  # of models to nodes, all copies together


class Manifests(Section, frozen=True):
    window_s: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 300.0  # between two seals


class Sync(Section, frozen=True):
    mode: Literal["online", "offline"] = "online"  # offline: nothing ever leaves the site
    control_plane_url: str | None = None  # wins over the URL of the enrolment
    interval_s: Positive = 60.0  # between two exchanges when all is well
    connect_s: Positive = 10.0
    request_s: Positive = 120.0  # of one exchange, from its first byte to its last
    backoff_s: Positive = 2.0  # at most, after the first failure; doubles up to backoff_s_max
    backoff_s_max: Positive = 900.0
    ca_file: str | None = None  # PEM: the authorities of the control plane's certificate
    proxy: str | None = None  # URL; the environment's is never used


class Bursting(Section, frozen=True):
    provider: Literal["off", "skypilot"] = "off"  # off: no cloud is ever asked
    python: str | None = None  # the interpreter that has SkyPilot; none: the appliance's own
    install: str = "python3 -m pip install --user crosslogic-appliance"  # on a fresh machine
    disk_gb: Count = 200
    poll_s: Positive = 20.0  # between two looks at what is lent
    token_s: Positive = 3_600.0  # a machine joins within it


class Backups(Section, frozen=True):
    every_s: Annotated[float, msgspec.Meta(ge=0, le=31 * 86_400)] = 86_400.0  # 0: only when asked
    keep: Count = 7  # the newest of the folder; older ones are removed after one was made
    folder: str | None = None  # none: `backups` in the home


class Alerts(Section, frozen=True):
    """From where on something wants an administrator (docs/ALERTS.md)."""

    gpu_margin_celsius: Annotated[int, msgspec.Meta(ge=0, le=50)] = 3  # below where it slows down
    limit_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] = 90  # used of a limit
    queue_length: Count = 8  # requests that wait for one deployment
    sync_lag_s: Positive = 86_400.0  # the oldest manifest without a receipt
    entitlement_days: Annotated[int, msgspec.Meta(ge=0, le=365)] = 14  # until its next stage
    certificate_days: Annotated[int, msgspec.Meta(ge=0, le=3_650)] = 30  # until its end
    disk_free_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10
    disk_free_bytes: Annotated[int, msgspec.Meta(ge=0)] = 2 * 1024**3
    memory_free_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 5
    clock_offset_s: Positive = 1.0
    backup_age_s: Positive | None = None  # none: twice backups.every_s


class Notifications(Section, frozen=True):
    """How alerts are told (notifying/). Without a channel nothing is ever sent."""

    when_offline: Literal["silent", "local"] = "silent"  # while sync.mode is offline
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=120)] = 10.0  # of one attempt
    digest_length: Annotated[int, msgspec.Meta(ge=2, le=100)] = 5  # so many at once are one message
    queue_length_max: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1_000  # of one channel
    retry_s: Positive = 5.0  # after the first failure, at most; doubles up to retry_s_max
    retry_s_max: Positive = 900.0
    give_up_s: Positive = 86_400.0  # what is older is told no more
    ca_file: str | None = None  # PEM: the authorities of the receivers' certificates


class Metrics(Section, frozen=True):
    listen: str | None = None  # "HOST:PORT" to serve /metrics over TCP beside the admin socket


class Log(Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"


class Branding(Section, frozen=True):
    """The name under which a partner sells the appliance (branding.py). Both, or none."""

    file: str | None = None  # the signed file
    publisher: str | None = None  # PEM: the public key of who may have signed it


class Settings(Section, frozen=True):
    """Everything a site can be told."""

    site: Site = Site()
    access: Access = Access()
    gateway: Gateway = Gateway()
    timeouts: Timeouts = Timeouts()
    limits: Limiting = Limiting()
    scheduler: Scheduling = Scheduling()
    fleet: Fleet = Fleet()
    nodes: Nodes = Nodes()
    manifests: Manifests = Manifests()
    sync: Sync = Sync()
    burst: Bursting = Bursting()
    backups: Backups = Backups()
    alerts: Alerts = Alerts()
    notifications: Notifications = Notifications()
    metrics: Metrics = Metrics()
    log: Log = Log()
    branding: Branding = Branding()


ENVIRONMENT_PREFIX: Final = "CIC_"

S = TypeVar("S", bound=Section)


def load(config_file: Path, environ: Mapping[str, str]) -> Settings:
    """Read the file (which may be absent) and lay the environment over it.

    Raises SettingsError that names the file or variable, the setting, and what it should be.
    """
    return load_as(Settings, ENVIRONMENT_PREFIX, config_file, environ)


def load_as(whole: type[S], prefix: str, config_file: Path, environ: Mapping[str, str]) -> S:
    """The same for another program: `whole` has its tables, its variables begin with `prefix`."""
    tables = _parse(read_file(config_file), config_file)
    sources = _lay_over(tables, whole, prefix, config_file, environ)
    return _convert(whole, tables, sources, config_file)


@dataclass(frozen=True, slots=True)
class Sourced:
    """Settings with where each that is no default comes from. Names as `timeouts.head_s`."""

    settings: Settings
    in_file: frozenset[str]
    variables: Mapping[str, str]  # that are set, by name of their setting


def read_sourced(content: bytes, config_file: Path, environ: Mapping[str, str]) -> Sourced:
    """What a file with this content would make, beneath this environment. Raises SettingsError."""
    tables = _parse(content, config_file)
    in_file = frozenset(
        f"{section}.{name}"
        for section, table in tables.items()
        if isinstance(table, dict)
        for name in table
    )
    variables = _lay_over(tables, Settings, ENVIRONMENT_PREFIX, config_file, environ)
    settings = _convert(Settings, tables, variables, config_file)
    return Sourced(settings, in_file, {f"{s}.{n}": v for (s, n), v in variables.items()})


def value_of(name: str, text: str) -> object:
    """The value of a setting that a variable of this text would give. Raises SettingsError."""
    section, _, rest = name.partition(".")
    tables: dict[str, object] = {section: {rest: text}}
    settings = _convert(Settings, tables, {(section, rest): name}, Path(name))
    return getattr(getattr(settings, section), rest)


def _lay_over(
    tables: dict[str, object],
    whole: type[Section],
    prefix: str,
    config_file: Path,
    environ: Mapping[str, str],
) -> dict[tuple[str, str], str]:
    """Put the variables' texts over the tables; which variable each comes from."""
    sources: dict[tuple[str, str], str] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(prefix):
            continue
        section, name = _split(whole, variable.removeprefix(prefix).lower())
        if section is None:
            continue
        table = tables.setdefault(section, {})
        if not isinstance(table, dict):
            raise SettingsError(
                f"{config_file}: '{section}' must be a table.",
                next_step=f"Write it as [{section}].",
            )
        table[name] = text
        sources[section, name] = variable
    return sources


def read_file(config_file: Path) -> bytes:
    """Its content, b"" when it is not there. Raises SettingsError."""
    try:
        return config_file.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SettingsError(
            f"Cannot read {config_file}: {error.strerror}.",
            next_step="Check the permissions of the file.",
        ) from error


def _parse(content: bytes, config_file: Path) -> dict[str, object]:
    try:
        return msgspec.toml.decode(content, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{config_file} is not valid TOML: {error}.", next_step="Correct the file."
        ) from error


def _split(whole: type[Section], rest: str) -> tuple[str | None, str]:
    """`timeouts_head_s` -> ("timeouts", "head_s"). None: no setting, as CIC_HOME."""
    for field in msgspec.structs.fields(whole):
        if rest.startswith(field.name + "_"):
            return field.name, rest.removeprefix(field.name + "_")
    return None, rest


def _from_text(text: str, kind: object) -> object:
    """A variable's text: where a list is wanted, its words with commas between them."""
    if get_origin(kind) is not tuple:
        return text
    if text == "none":
        return []
    return [word for part in text.split(",") if (word := part.strip())]


def _convert(
    whole: type[S],
    tables: dict[str, object],
    sources: Mapping[tuple[str, str], str],
    config_file: Path,
) -> S:
    # Values from the environment are text; only they may be converted, or a TOML "3" would pass.
    sections: dict[str, object] = {}
    for field in msgspec.structs.fields(whole):
        table = tables.pop(field.name, None)
        if table is None:
            continue
        if not isinstance(table, dict):
            raise SettingsError(
                f"{config_file}: '{field.name}' must be a table.",
                next_step=f"Write it as [{field.name}].",
            )
        converted: dict[str, object] = {}
        known = {f.name: f for f in msgspec.structs.fields(field.type)}
        for name, value in table.items():
            source = sources.get((field.name, name))
            where = source or f"{config_file}: {field.name}.{name}"
            if name not in known:
                raise SettingsError(
                    f"{where} is not a setting.",
                    next_step=f"Settings of [{field.name}]: {', '.join(sorted(known))}.",
                )
            kind = known[name].type
            if source is not None and value == "none" and NoneType in get_args(kind):
                converted[name] = None
                continue
            given = value if source is None else _from_text(str(value), kind)
            try:
                converted[name] = msgspec.convert(given, kind, strict=source is None)
            except msgspec.ValidationError as error:
                raise SettingsError(
                    f"{where} = {value!r} is not valid: {error}.",
                    next_step="See docs/SETTINGS.md for its type and default.",
                ) from error
        sections[field.name] = field.type(**converted)
    if tables:
        raise SettingsError(
            f"{config_file}: [{min(tables)}] is not a table of settings.",
            next_step=f"Tables: {', '.join(f.name for f in msgspec.structs.fields(whole))}.",
        )
    return whole(**sections)
