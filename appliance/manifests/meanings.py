"""What it proves that something verified, and what it does not, in words for a person."""

from typing import Final, NamedTuple


class Meaning(NamedTuple):
    proves: tuple[str, ...]
    does_not_prove: tuple[str, ...]


_KEY: Final = (
    "That the key is really that of the site or the control plane: compare its fingerprint with"
    " them by another way.",
)
_SIGNED_BY_CONTROL_PLANE: Final = (
    "The holder of the given key, the control plane's, signed exactly this, and no byte of it was"
    " changed since."
)
_NEWEST: Final = "That there is no newer one."

MEANINGS: Final[dict[str, Meaning]] = {
    "proof": Meaning(
        (
            "The site recorded this request with exactly these tokens, and put it into the manifest"
            " that is named, which it signed.",
            "It is counted there once: the line's number of requests is the number of records that"
            " its root covers.",
            "Nothing of another request had to be shown for this.",
        ),
        (
            "That the site measured rightly: it shows what was recorded and signed.",
            "That the manifest was sent, accepted or invoiced: the receipt shows that.",
            *_KEY,
        ),
    ),
    "manifest": Meaning(
        (
            "The site signed this window, and no byte of it was changed since.",
            "The lines are exactly those that were signed, and add up to the sums in the header.",
        ),
        (
            "That nothing is missing before or after it: the chain shows that, as in a bundle.",
            "That the records under the lines are these or those: a proof shows one.",
            *_KEY,
        ),
    ),
    "manifest header": Meaning(
        ("The site signed this header with these sums, and no byte of it was changed since.",),
        (
            "That the lines add up to it: they were not given (`--lines FILE`).",
            "That nothing is missing before or after it: the chain shows that, as in a bundle.",
            *_KEY,
        ),
    ),
    "usage bundle": Meaning(
        (
            "The site signed every manifest in it, each continues the one before it, and none is"
            " missing from the site's first to the last one here.",
            "The lines are those that were signed; records are numbered without a gap, and the sums"
            " add up from the beginning.",
            "The checkpoint signs the log of exactly these manifests: nobody can be shown another"
            " log of this length without that being found when the two are compared.",
        ),
        (
            "That the site counted rightly, or that there is no later manifest.",
            "That the control plane took them: the receipt shows that.",
            *_KEY,
        ),
    ),
    "part of a usage log": Meaning(
        (
            "The site signed every manifest in it, each continues the one before it, and none is"
            " missing between the first and the last one here.",
            "The lines are those that were signed; records are numbered without a gap, and the sums"
            " add up.",
        ),
        (
            "What was before the first manifest here, and what comes after the last.",
            "That the log's root is that of these manifests: it covers others as well.",
            "That the site counted rightly, or that the control plane took them.",
            *_KEY,
        ),
    ),
    "receipt bundle": Meaning(
        (
            "The control plane signed every document in it, and none was changed since.",
            "All of them are for the one appliance that is named.",
        ),
        ("That these are the newest.", *_KEY),
    ),
    "receipt": Meaning(
        (
            _SIGNED_BY_CONTROL_PLANE,
            "It accepted the site's manifests up to the one that is named, with the head that is"
            " named, at the time it tells.",
        ),
        (
            "That they are invoiced already, or rightly priced: the reconciliation shows that.",
            _NEWEST,
            *_KEY,
        ),
    ),
    "entitlement": Meaning(
        (_SIGNED_BY_CONTROL_PLANE, "It is for this appliance and this key alone."),
        ("That it is in force today: see its dates, and the receipts that renew it.", *_KEY),
    ),
    "price book": Meaning(
        (_SIGNED_BY_CONTROL_PLANE,), (_NEWEST, "That an invoice was made with it.", *_KEY)
    ),
    "plans": Meaning((_SIGNED_BY_CONTROL_PLANE,), (_NEWEST, *_KEY)),
    "key revocation": Meaning(
        (
            _SIGNED_BY_CONTROL_PLANE,
            "What the revoked key signed from the named manifest on is refused.",
        ),
        ("That what the key signed before was not forged as well.", *_KEY),
    ),
    "epoch grant": Meaning(
        (
            _SIGNED_BY_CONTROL_PLANE,
            "The site may begin this epoch, after exactly the manifest that is named.",
        ),
        ("What became of records that a restored copy had lost.", *_KEY),
    ),
    "key rotation": Meaning(
        (
            "The old key names the new one as its successor from the named manifest on, and who"
            " holds the new one signed that, too.",
        ),
        ("That the old key was not stolen before: a revocation ends a stolen key.", *_KEY),
    ),
    "enrolment": Meaning(
        ("Whoever holds this key gave himself this name and this appliance's id.",),
        ("That it is the site that it says it is.", *_KEY),
    ),
    "checkpoint": Meaning(
        (
            "The site signed that its log of manifests has this many entries and this root.",
            "Two checkpoints of one size with different roots are proof that the log was forked.",
        ),
        ("What is in the log: the manifests show that.", *_KEY),
    ),
}
