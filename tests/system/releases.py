"""Further versions of the bundle in dist/, signed by the same development key: as a vendor's next
releases, without building each anew."""

import os
import re
import sys
import tarfile
from pathlib import Path

from tests.system.sites import NAME, ROOT, VERSION

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crosslogic"


def release(into: Path, version: str, changes: dict[str, str] | None = None) -> Path:
    """A folder `<name of the bundle>` of this version. `changes`: files of the tree, as texts."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    sys.path.insert(0, str(ROOT / "packaging/bundle"))
    try:
        from sealing import seal  # type: ignore[import-not-found]  # noqa: PLC0415
    finally:
        sys.path.pop(0)
    with tarfile.open(ROOT / "dist" / f"{NAME}.tar.gz") as tar:
        tar.extractall(into)
    folder = into / NAME.replace(VERSION, version)
    if version != VERSION:
        (into / NAME).rename(folder)
    app = folder / "tree/app"
    (told,) = app.glob("crosslogic_appliance-*.dist-info")
    metadata = told / "METADATA"
    text = re.sub(r"(?m)^Version: .*$", f"Version: {version}", metadata.read_text(), count=1)
    metadata.write_text(text)
    told.rename(app / f"crosslogic_appliance-{version}.dist-info")
    for name, content in (changes or {}).items():
        file = folder / "tree" / name
        file.write_text(content)
        for stale in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            stale.unlink()
    for name in ("SHA256SUMS", "SHA256SUMS.sig"):
        (folder / name).unlink()
    key = load_pem_private_key((CACHE / "development-release-key.pem").read_bytes(), password=None)
    seal(folder, key)
    return folder


def source(package: str) -> dict[str, str]:
    """A package of the working tree, for `release`: what dist/ has may be older."""
    return {
        f"app/{path.relative_to(ROOT)}": path.read_text()
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def units() -> dict[str, str]:
    folder = ROOT / "packaging/systemd"
    return {f"systemd/{file.name}": file.read_text() for file in sorted(folder.iterdir())}
