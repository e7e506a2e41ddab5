"""What it proves that something verified, and what it does not, in words for a person.

Of what `explain.py` says nothing: bundles, checkpoints, and the documents that need few words.
"""

from typing import Final, NamedTuple

from appliance.manifests.documents import Document, Entitlement, Receipt
from appliance.manifests.explain import Explanation, entitlement_in_words, receipt_in_words


class Meaning(NamedTuple):
    proves: tuple[str, ...]
    does_not_prove: tuple[str, ...]


_SIGNED_BY_CONTROL_PLANE: Final = (
    "The holder of the given key, the control plane's, signed exactly this, and no byte of it was"
    " changed since."
)
_NEWEST: Final = "That there is no newer one."

MEANINGS: Final[dict[str, Meaning]] = {
    "manifest header": Meaning(
        ("The site signed this header with these sums, and no byte of it was changed since.",),
        (
            "That the lines add up to it: they were not given (`--lines FILE`).",
            "That nothing is missing before or after it: the chain shows that, as in a bundle.",
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
        ),
    ),
    "receipt bundle": Meaning(
        (
            "The control plane signed every document in it, and none was changed since.",
            "All of them are for the one appliance that is named.",
        ),
        ("That these are the newest.",),
    ),
    "price book": Meaning(
        (_SIGNED_BY_CONTROL_PLANE,),
        (
            _NEWEST,
            "That an invoice was made with it.",
        ),
    ),
    "plans": Meaning((_SIGNED_BY_CONTROL_PLANE,), (_NEWEST,)),
    "key revocation": Meaning(
        (
            _SIGNED_BY_CONTROL_PLANE,
            "What the revoked key signed from the named manifest on is refused.",
        ),
        ("That what the key signed before was not forged as well.",),
    ),
    "epoch grant": Meaning(
        (
            _SIGNED_BY_CONTROL_PLANE,
            "The site may begin this epoch, after exactly the manifest that is named.",
        ),
        ("What became of records that a restored copy had lost.",),
    ),
    "key rotation": Meaning(
        (
            "The old key names the new one as its successor from the named manifest on, and who"
            " holds the new one signed that, too.",
        ),
        ("That the old key was not stolen before: a revocation ends a stolen key.",),
    ),
    "enrolment": Meaning(
        ("Whoever holds this key gave himself this name and this appliance's id.",),
        ("That it is the site that it says it is.",),
    ),
    "checkpoint": Meaning(
        (
            "The site signed that its log of manifests has this many entries and this root.",
            "Two checkpoints of one size with different roots are proof that the log was forked.",
        ),
        ("What is in the log: the manifests show that.",),
    ),
}


def document_in_words(kind: str, document: Document, summary: str) -> Explanation:
    """Of a document that was verified. `summary` is used where `explain.py` has none."""
    match document:
        case Receipt():
            return receipt_in_words(document)
        case Entitlement():
            return entitlement_in_words(document)
        case _:
            return meaning_of(kind, summary)


def meaning_of(kind: str, summary: str) -> Explanation:
    """Of one of MEANINGS."""
    return Explanation(summary, *MEANINGS[kind])
