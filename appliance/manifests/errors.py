"""Errors of manifests.

ManifestError
├── BadDocument        bytes that are no document of the kind that was expected
├── UnknownKey         signed with a key that is not known here
├── SignatureInvalid   the signature does not belong to these bytes
├── BadProof           a proof that does not prove what it claims
├── BadCheckpoint      a checkpoint that is malformed, or not signed by its log
├── KeyChainBroken     a rotation, a revocation or a grant that does not fit the keys before it
├── BadManifest        a manifest that does not verify; its message begins with the code
└── BadBundle          a container is damaged, was changed, or is none
    └── BundleTooLarge it, or something in it, is larger than any that is written
"""

from appliance.domain.errors import CrossLogicError


class ManifestError(CrossLogicError):
    code = "manifest_error"


class BadDocument(ManifestError):
    code = "bad_document"


class UnknownKey(ManifestError):
    code = "unknown_signing_key"


class SignatureInvalid(ManifestError):
    code = "signature_invalid"


class BadProof(ManifestError):
    code = "bad_proof"


class BadCheckpoint(ManifestError):
    code = "bad_checkpoint"


class KeyChainBroken(ManifestError):
    code = "key_chain_broken"


class BadManifest(ManifestError):
    code = "bad_manifest"


class BadBundle(ManifestError):
    code = "bad_bundle"


class BundleTooLarge(BadBundle):
    code = "bundle_too_large"


class ChainMoved(ManifestError):
    code = "chain_moved"


class NoSuchManifest(ManifestError):
    code = "no_such_manifest"
