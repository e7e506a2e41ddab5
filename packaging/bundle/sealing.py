"""What makes a folder a signed bundle: checksums, a signature, a reproducible archive."""

import gzip
import os
import tarfile
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
PUBLIC_KEY = "release-key.pem"


def release_key(cache: Path) -> tuple[ec.EllipticCurvePrivateKey, bool]:
    """The key of CROSSLOGIC_RELEASE_KEY, or this account's development key; whether it is that."""
    named = os.environ.get("CROSSLOGIC_RELEASE_KEY")
    file = Path(named) if named else cache / "development-release-key.pem"
    if not named and not file.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        cache.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(
                made.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
    key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise SystemExit(
            f"{file} is no P-256 key.\nFix: openssl ecparam -name prime256v1 -genkey -noout"
        )
    return key, not named


def seal(bundle: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Writes the public key, SHA256SUMS and its signature (RFC 6979: the same bytes each time)."""
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (bundle / PUBLIC_KEY).write_bytes(public)
    names = sorted(
        str(file.relative_to(bundle))
        for file in bundle.rglob("*")
        if file.is_file() and str(file.relative_to(bundle)) not in {SUMS, SIGNATURE}
    )
    odd = [n for n in names if "\n" in n or "\\" in n] + [
        str(f) for f in bundle.rglob("*") if f.is_symlink()
    ]
    if odd:
        raise ValueError(f"a bundle holds neither links nor such names: {odd}")
    lines = [f"{sha256((bundle / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    sums = "".join(lines).encode()
    (bundle / SUMS).write_bytes(sums)
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    (bundle / SIGNATURE).write_bytes(key.sign(sums, algorithm))


def pack(bundle: Path, archive: Path, mtime: int) -> str:
    """The folder as .tar.gz: sorted names, owner 0, one time for all; returns its SHA-256."""
    partial = archive.with_suffix(".partial")
    with (
        partial.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in [bundle, *sorted(bundle.rglob("*"))]:
            info = tarfile.TarInfo(str(path.relative_to(bundle.parent)))
            info.mtime = mtime
            if path.is_dir():
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
                continue
            info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            info.size = path.stat().st_size
            with path.open("rb") as content:
                tar.addfile(info, content)
    partial.replace(archive)
    return sha256(archive.read_bytes()).hexdigest()
