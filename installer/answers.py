"""What an installation is told: a TOML file whose every field has a meaning, a default and a check.

FIELDS is the reference: the annotated example of --print-answers and the table of docs/INSTALL.md
are made of it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from installer.answer_checks import (
    address,
    choice,
    flag,
    group_names,
    model_name,
    name_given,
    names,
    path,
    site_name,
    slug,
    whole_number,
)
from installer.errors import BadAnswers


@dataclass(frozen=True, slots=True)
class Answers:
    """One value for each field; `site.name` in the file is `site_name` here."""

    role: str = "all"
    site_name: str = "site"
    site_region: str = "local"
    endpoint_listen: str = "0.0.0.0:8080"
    endpoint_tls: str = "own"
    endpoint_tls_listen: str = "0.0.0.0:8443"
    endpoint_names: tuple[str, ...] = ()
    endpoint_certificate: str = ""
    endpoint_key: str = ""
    access_viewers: tuple[str, ...] = ()
    access_operators: tuple[str, ...] = ()
    access_admins: tuple[str, ...] = ()
    tenant_name: str = "default"
    tenant_environment: str = "prod"
    tenant_key: str = "first"
    tenant_key_file: str = ""
    engine_llamacpp: str = ""
    model_file: str = ""
    model_name: str = ""
    model_engine: str = "llamacpp"
    model_gpus: int = 0
    model_accept_licence: bool = False
    model_publisher: str = ""
    branding_file: str = ""
    branding_publisher: str = ""
    preflight_ignore: tuple[str, ...] = ()
    preflight_models_gb: int = 100
    start: bool = True


Check = Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the file. `check` returns the value as it is kept, or raises ValueError."""

    name: str
    meaning: str
    check: Check = field(repr=False)

    @property
    def attribute(self) -> str:
        return self.name.replace(".", "_")

    @property
    def default(self) -> object:
        return getattr(Answers(), self.attribute)


FIELDS: tuple[Field, ...] = (
    Field("role", "all: endpoint and engines on this server; gateway: the endpoint alone",
          choice("all", "gateway")),
    Field("start", "false: everything is laid down, nothing is started or enabled", flag),
    Field("site.name", "the site's name, for people", site_name),
    Field("site.region", "the region of this site", name_given),
    Field("endpoint.listen", "where clients reach the endpoint by plain HTTP", address),
    Field("endpoint.tls", "own: a certificate by the site's CA; files: certificate and key below; "
          "csr: a request to have signed; off: plain HTTP alone",
          choice("own", "files", "csr", "off")),
    Field("endpoint.tls_listen", "where clients reach the endpoint by TLS", address),
    Field("endpoint.names", "names and addresses in the certificate; empty: this host's", names),
    Field("endpoint.certificate", "tls = files: a PEM file, the server's certificate first", path),
    Field("endpoint.key", "tls = files: its private key, PEM, not encrypted", path),
    Field("access.viewers", "Unix groups that may read the admin API", group_names),
    Field("access.operators", "Unix groups that may also suspend, drain and scale", group_names),
    Field("access.admins", "Unix groups that may do everything", group_names),
    Field("tenant.name", "the first tenant; empty: none is made", slug),
    Field("tenant.environment", "its environment", name_given),
    Field("tenant.key", "its API key; empty: none is made", slug),
    Field("tenant.key_file", "a new file for the key's secret, mode 0600; empty: it is shown once",
          path),
    Field("engine.llamacpp", "the folder of an unpacked crosslogic-llamacpp bundle; empty: the one "
          "beside this bundle, where there is one", path),
    Field("model.file", "the first model: a model pack, a GGUF file or a folder of weights; empty: "
          "the pack in the bundle, where there is one", path),
    Field("model.name", "its name for clients; empty: as the pack says, or the file's name",
          model_name),
    Field("model.engine", "the engine that serves it", choice("llamacpp", "vllm", "sglang")),
    Field("model.gpus", "GPUs for each replica; 0: as the engine takes them", whole_number),
    Field("model.accept_licence", "true: the licence of the model pack was read and is accepted",
          flag),
    Field("model.publisher", "the id of the key that signed the model pack; trusted from then on",
          path),
    Field("branding.file", "the signed file of a partner's name", path),
    Field("branding.publisher", "a PEM file: the public key of who signed it", path),
    Field("preflight.ignore", "checks that must not keep this installation from going on", names),
    Field("preflight.models_gb", "room wanted for models, in GB", whole_number),
)  # fmt: skip


def read_answers(content: bytes, source: str) -> Answers:
    """Answers of a TOML file. Raises BadAnswers, which names the field and what it takes."""
    try:
        tables = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadAnswers(
            f"{source} is not TOML: {error}.",
            next_step="Compare it with the example: cic-installer install --print-answers",
        ) from error
    known = {one.name: one for one in FIELDS}
    values: dict[str, Any] = {}
    for name, value in _flat(tables):
        one = known.get(name)
        if one is None:
            raise BadAnswers(
                f"{source} has {name}, which is no answer.{_nearest(name, known)}",
                next_step="List all of them: cic-installer install --print-answers",
            )
        values[one.attribute] = _checked(one, value, source)
    return consistent(Answers(**values), source)


def _flat(tables: Mapping[str, object]) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in tables.items():
        if isinstance(value, dict):
            found += [(f"{name}.{inner}", held) for inner, held in value.items()]
        else:
            found.append((name, value))
    return found


def _nearest(name: str, known: Mapping[str, Field]) -> str:
    import difflib  # noqa: PLC0415 (needed for an error alone)

    near = difflib.get_close_matches(name, known, 1)
    return f" Is {near[0]} meant?" if near else ""


def _checked(one: Field, value: object, source: str) -> object:
    try:
        return one.check(value)
    except ValueError as error:
        raise BadAnswers(
            f"{source}: {one.name} = {json.dumps(value, default=str)}: {error}.",
            next_step=f"{one.name}: {one.meaning}.",
        ) from error


def consistent(answers: Answers, source: str) -> Answers:
    """What single fields cannot know. Raises BadAnswers."""
    problem, fix = "", ""
    if answers.endpoint_tls == "files" and not (
        answers.endpoint_certificate and answers.endpoint_key
    ):
        problem, fix = (
            'endpoint.tls = "files" needs endpoint.certificate and endpoint.key',
            'Name both files, or use endpoint.tls = "own".',
        )
    elif answers.endpoint_tls != "files" and (answers.endpoint_certificate or answers.endpoint_key):
        problem, fix = (
            f'endpoint.certificate is given, and endpoint.tls = "{answers.endpoint_tls}"',
            'Say endpoint.tls = "files", or leave the files out.',
        )
    elif answers.endpoint_tls != "off" and _port(answers.endpoint_listen) == _port(
        answers.endpoint_tls_listen
    ):
        problem, fix = (
            "endpoint.listen and endpoint.tls_listen have the same port",
            "Give them two ports: 8080 and 8443, for instance.",
        )
    elif bool(answers.branding_file) != bool(answers.branding_publisher):
        problem, fix = (
            "branding.file and branding.publisher belong together",
            "Name both, or none.",
        )
    elif answers.model_file and answers.role != "all":
        problem, fix = (
            'model.file is given, and role = "gateway" runs no engines',
            'Say role = "all", or give the model when a node has joined.',
        )
    elif answers.tenant_key_file and not (answers.tenant_name and answers.tenant_key):
        problem, fix = (
            "tenant.key_file is given, and no key is made",
            "Give tenant.name and tenant.key.",
        )
    if problem:
        raise BadAnswers(f"{source}: {problem}.", next_step=fix)
    return answers


def _port(listen: str) -> int | None:
    port = int(listen.rpartition(":")[2])
    return port or None  # port 0 is any free one, which is never the same


def load_answers(named: str, stdin: Callable[[], bytes], base: Path) -> Answers:
    """`named` is a file, or `-` for standard input. Paths in it count from the file's folder."""
    if named == "-":
        return _placed(read_answers(stdin(), "standard input"), base)
    file = base / named
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadAnswers(
            f"The answers {file} cannot be read: {error.strerror}.",
            next_step="Name a file: --answers FILE, or --answers - for standard input.",
        ) from error
    return _placed(read_answers(content, str(file)), file.parent)


_PATHS = (
    "endpoint_certificate", "endpoint_key", "tenant_key_file", "engine_llamacpp", "model_file",
    "branding_file", "branding_publisher",
)  # fmt: skip


def _placed(answers: Answers, base: Path) -> Answers:
    values = asdict(answers)
    for name in _PATHS:
        if values[name]:
            values[name] = str((base / values[name]).absolute())
    return from_json(values)


def to_json(answers: Answers) -> dict[str, Any]:
    return asdict(answers)


def from_json(values: Mapping[str, Any]) -> Answers:
    """Of `to_json`; fields that an older installer did not know have their defaults."""
    known = asdict(Answers())
    kept: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list | tuple) else value
        for name, value in values.items()
        if name in known
    }
    return Answers(**kept)


def example() -> str:
    """An answers file with every field, its meaning and its default."""
    lines = ["# Answers for: ./install.sh --answers FILE", "# Every field may be left out."]
    table = ""
    for one in sorted(FIELDS, key=lambda field: "." in field.name):
        head, _, name = one.name.rpartition(".")
        if head != table:
            table = head
            lines += ["", f"[{table}]"]
        lines += [f"# {one.meaning}.", f"{name} = {as_toml(one.default)}"]
    return "\n".join(lines) + "\n"


def as_toml(value: object) -> str:
    """A JSON string, number, boolean or list of strings is written alike in TOML."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)
