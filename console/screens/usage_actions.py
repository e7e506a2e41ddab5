"""What can be done about usage: sealing, carrying, exchanging, verifying. Pure."""

from console.actions import Action, Field, plain


def of_the_site() -> list[Action]:
    """What can be done wherever usage or manifests are looked at."""
    return [*_carrying(), *_standing(), *_introducing()]


def _carrying() -> list[Action]:
    return [
        Action(
            key="T",
            title="Sync now",
            role="operator",
            argv=plain("sync", "now"),
            slow=True,
            done="Exchanged with the control plane.",
        ),
        Action(
            key="B",
            title="Bundle out",
            role="operator",
            argv=lambda values: [
                *("bundle", "export", "--to", values["to"]),
                *(["--all"] if values.get("all") else []),
            ],
            impact="Seals what is new and writes what the control plane has no receipt for onto a"
            " stick. It is written, synced and read back before it says done.",
            fields=(
                Field("to", "Folder", "path", required=True, hint="Where the stick is mounted."),
                Field("all", "Also receipted ones", "toggle"),
            ),
            slow=True,
            done="The bundle is written: safe to unplug.",
        ),
        Action(
            key="I",
            title="Import",
            role="operator",
            argv=lambda values: ["bundle", "import", values["file"]],
            impact="Takes what the control plane answered: receipts, entitlement, plans, prices."
            " Every document's signature is checked first.",
            fields=(Field("file", "File", "path", required=True, hint="….receipt on the stick"),),
            slow=True,
            done="The documents are taken.",
        ),
    ]


def _standing() -> list[Action]:
    return [
        Action(
            key="V",
            title="Verify all",
            role="viewer",
            argv=plain("manifest", "verify"),
            slow=True,
            done="Every manifest was recomputed from its records: all are right.",
        ),
        Action(
            key="S",
            title="Seal now",
            role="operator",
            argv=plain("manifest", "seal"),
            done="What is new is sealed.",
        ),
    ]


def _introducing() -> list[Action]:
    return [
        Action(
            key="E",
            title="Enrol",
            role="admin",
            argv=lambda values: ["sync", "enrol", values["url"], "-"],
            impact="Introduces this site to the vendor's control plane with the code it gave you.",
            fields=(
                Field("url", "URL", required=True, hint="https://…"),
                Field("code", "Code", "secret", required=True),
            ),
            stdin="code",
            done="Enrolled.",
        ),
        Action(
            key="R",
            title="Request to carry",
            role="admin",
            argv=lambda values: [
                *("sync", "request", "--out", values["out"]),
                *(["--new-key"] if values.get("new") else []),
            ],
            impact="Writes the site's signed introduction into a file, to be carried to the vendor"
            " where no wire leads there. The answer comes back as a file for I.",
            fields=(
                Field("out", "File", "path", required=True, hint="On the stick."),
                Field("new", "With a new key", "toggle"),
            ),
            done="Written: give it to the vendor.",
        ),
        Action(
            key="L",
            title="Install entitlement",
            role="admin",
            argv=lambda values: ["entitlement", "install", values["file"]],
            impact="Its signature is checked against the control plane's pinned key.",
            fields=(Field("file", "File", "path", required=True),),
            done="Installed.",
        ),
    ]


def prove(record_id: str) -> Action:
    return Action(
        key="P",
        title="Prove",
        role="viewer",
        argv=lambda values: ["usage", "prove", record_id, "--out", values["out"]],
        impact="Writes a proof that this record is in its signed manifest; anybody can check it"
        " with `cic verify` and the site's public key.",
        fields=(Field("out", "File", "path", default=f"{record_id}.proof.json", required=True),),
        done="The proof is written.",
    )
