"""A bundle as `make bundle` leaves it, with this development environment in place of its tree.

Its interpreter is a copy of the one that runs the tests, and its packages are those of the tests:
what it installs is the real `cic`. A version has a number of its own, and may be broken on purpose.
"""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.architecture.tree import ROOT

WRAPPERS = ROOT / "packaging" / "bundle" / "wrappers"
KEY = ec.derive_private_key(4711, ec.SECP256R1())
OTHER_KEY = ec.derive_private_key(4712, ec.SECP256R1())
STANDARD_FOLDERS = ("etc", "opt", "run", "usr/bin", "usr/lib", "var/lib", "var/log")
# Ends `cic serve` at its start, and nothing else: a version that only its start shows to be broken.
BROKEN_SERVE = """\
import sys

if "serve" in sys.orig_argv:
    sys.exit("this version does not serve")
"""
UNIT = """\
[Unit]
Description=stand-in
[Service]
ExecStart=/opt/crosslogic/current/bin/cic serve
[Install]
WantedBy=multi-user.target
"""


def make_bundle(
    folder: Path,
    version: str = "0.1.0",
    *,
    customize: str = "",
    units: bool = False,
    key: ec.EllipticCurvePrivateKey = KEY,
) -> Path:
    """`folder`/crosslogic-appliance-VERSION-linux-x86_64, sealed. `customize`: run at starts."""
    bundle = folder / f"crosslogic-appliance-{version}-linux-x86_64"
    tree = bundle / "tree"
    packages = tree / "python" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    (tree / "python/bin").mkdir()
    shutil.copy(Path(sys.executable).resolve(), tree / "python/bin/python3")
    home = Path(sysconfig.get_config_var("BINDIR"))
    (tree / "python/pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\n"
    )
    own = sysconfig.get_paths()["purelib"]
    # Not sitecustomize.py: a distribution has one, which goes before.
    custom = "import stand_in_customize\n" if customize else ""
    (packages / "crosslogic.pth").write_text(f"../../../../app\n{ROOT}\n{own}\n{custom}")
    _application(tree / "app", version)
    if customize:
        (tree / "app/stand_in_customize.py").write_text(customize)
    (tree / "bin").mkdir()
    for wrapper in WRAPPERS.iterdir():
        shutil.copy(wrapper, tree / "bin" / wrapper.name)
    if units:
        (tree / "systemd").mkdir()
        for name in ("crosslogic-gateway.service", "crosslogic-agent.service"):
            (tree / "systemd" / name).write_text(UNIT)
    shutil.copy(ROOT / "packaging/bundle/install.sh", bundle / "install.sh")
    seal(bundle, key)
    return bundle


def _application(app: Path, version: str) -> None:
    """Names this version: `cic --version` and the entry points are read from here first."""
    told = app / f"crosslogic_appliance-{version}.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: crosslogic-appliance\nVersion: {version}\n"
    )
    entries = distribution("crosslogic-appliance").read_text("entry_points.txt")
    assert entries is not None
    (told / "entry_points.txt").write_text(entries)


def seal(bundle: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """As packaging/bundle/sealing.py does, with openssl in place of its library."""
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (bundle / "release-key.pem").write_bytes(public)
    names = sorted(
        str(file.relative_to(bundle))
        for file in bundle.rglob("*")
        if file.is_file() and not file.name.startswith("SHA256SUMS")
    )
    lines = [f"{hashlib.sha256((bundle / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (bundle / "SHA256SUMS").write_text("".join(lines))
    secret = bundle.parent / "release-secret.pem"
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    names_of_both = (bundle / "SHA256SUMS.sig", bundle / "SHA256SUMS")
    subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", secret, "-out", *names_of_both], check=True
    )
    secret.unlink()


def make_root(folder: Path) -> Path:
    """A root with the folders that every system has."""
    for name in STANDARD_FOLDERS:
        (folder / name).mkdir(parents=True)
    return folder


def snapshot(root: Path) -> dict[str, str]:
    """Everything below a root, with what it is: to be compared before and after."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_dir():
            found[name] = f"folder {path.stat().st_mode:o}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "other"
    return found
