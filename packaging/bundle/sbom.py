"""The bill of materials (CycloneDX 1.6): every wheel, the interpreter, each native library."""

import json
from pathlib import Path

from application import Wheel


def component(kind: str, name: str, version: str, licence: str, digest: str, purl: str) -> object:
    return {
        "type": kind,
        "bom-ref": purl,
        "name": name,
        "version": version,
        "licenses": [{"license": {"name": licence}}],
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "purl": purl,
    }


def native(sources: Path) -> list[object]:
    """The rows of python/sources.txt; their hashes are those of the upstream archives."""
    rows = [line.split() for line in sources.read_text().splitlines() if line and line[0] != "#"]
    return [
        component(
            "application" if package.startswith("python") else "library",
            "cpython" if package.startswith("python") else package,
            version,
            licence,
            digest,
            f"pkg:generic/{package}@{version}",
        )
        for _, package, _, digest, version, licence, _ in rows
    ]


def write(file: Path, name: str, version: str, wheels: list[Wheel], others: list[object]) -> None:
    """Nothing in it depends on when or where it was made."""
    parts = [
        component(
            "library", w.name, w.version, w.licence, w.sha256, f"pkg:pypi/{w.name}@{w.version}"
        )
        for w in wheels
    ]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": name, "version": version}},
        "components": [*parts, *others],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
