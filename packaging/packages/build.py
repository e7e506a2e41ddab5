"""`make packages`: a .deb and a .rpm that carry the signed bundle and run its installer.

Takes dist/crosslogic-appliance-<version>-linux-x86_64.tar.gz as it
is, and leaves both packages beside it. The same bundle gives the same bytes.
CROSSLOGIC_PACKAGE_KEY=FILE names a PGP key (armored, without a passphrase) that signs them.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DIST = ROOT / "dist"
MADE_AT = "2026-01-01T00:00:00Z"  # as the files of the bundle
BUNDLES = "/usr/lib/crosslogic/bundle"
SCRIPTS = {
    "postinstall": "after-install.sh",
    "preremove": "before-remove.sh",
    "postremove": "after-purge.sh",
}


def main(dist: Path = DIST) -> int:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    name = f"crosslogic-appliance-{version}-linux-x86_64"
    archive = dist / f"{name}.tar.gz"
    if not archive.exists():
        print(f"dist/{archive.name} is not there.\nFix: make bundle", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        with tarfile.open(archive) as tar:
            tar.extractall(folder)  # our own archive
        scripts = {kind: filled(HERE / file, folder, version) for kind, file in SCRIPTS.items()}
        described = description(version, folder / name, scripts)
        (folder / "nfpm.json").write_text(json.dumps(described))  # JSON is YAML
        for kind in ("deb", "rpm"):
            print(built(kind, folder, version, dist))
    return 0


def filled(script: Path, into: Path, version: str) -> str:
    target = into / script.name
    target.write_text(script.read_text().replace("@VERSION@", version))
    target.chmod(0o755)
    return str(target)


def description(version: str, bundle: Path, scripts: dict[str, str]) -> dict[str, object]:
    """What nfpm reads. The order of the contents and every time in it are fixed."""
    carried = {"src": f"{bundle}/", "dst": f"{BUNDLES}/{version}/", "type": "tree"}
    answers = {
        "src": str(HERE / "answers.toml"),
        "dst": f"{BUNDLES}/{version}-answers.toml",
        "file_info": {"mode": 0o644, "mtime": MADE_AT},
    }
    key = os.environ.get("CROSSLOGIC_PACKAGE_KEY")
    signature = {"signature": {"key_file": key}} if key else {}
    of_deb = {kind: scripts[kind] for kind in scripts}
    of_rpm = {kind: scripts[kind] for kind in scripts if kind != "postremove"}
    return {
        "name": "crosslogic-appliance",
        "arch": "amd64",
        "platform": "linux",
        "version": version,
        "version_schema": "none",
        "maintainer": "CrossLogic",
        "description": "OpenAI-compatible endpoint for GPU servers, on-premise and air-gapped\n"
        "Carries the signed bundle and runs its installer.",
        "license": "MIT",
        "section": "net",
        "mtime": MADE_AT,
        "contents": [carried, answers],
        "overrides": {
            "deb": {
                "depends": ["libc6 (>= 2.28)", "openssl", "coreutils", "findutils"],
                "recommends": ["systemd"],
                "scripts": of_deb,
            },
            "rpm": {
                "depends": ["glibc >= 2.28", "openssl", "coreutils", "findutils"],
                "scripts": of_rpm,
            },
        },
        "deb": {"compression": "xz", **signature},  # dpkg of older systems reads no zstd
        "rpm": {
            "group": "System Environment/Daemons",
            "compression": "xz",
            "buildhost": "localhost",
            **signature,
        },
    }


def built(kind: str, folder: Path, version: str, dist: Path) -> str:
    file = f"crosslogic-appliance_{version}_amd64.deb"
    if kind == "rpm":
        file = f"crosslogic-appliance-{version}-1.x86_64.rpm"
    nfpm = ROOT / ".venv-bundle/bin/nfpm"
    subprocess.run(
        [
            nfpm,
            "package",
            "--config",
            "nfpm.json",
            "--packager",
            kind,
            "--target",
            str(dist / file),
        ],
        check=True,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"},
    )
    digest = sha256((dist / file).read_bytes()).hexdigest()
    return f"dist/{file}  {(dist / file).stat().st_size / 1e6:.1f} MB  sha256 {digest}"


if __name__ == "__main__":
    sys.exit(main())
