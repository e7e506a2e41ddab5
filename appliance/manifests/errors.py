"""Errors of manifests.

ManifestError
└── BadBundle          a container is damaged, was changed, or is none
    └── BundleTooLarge it, or something in it, is larger than any that is written
"""

from appliance.domain.errors import CrossLogicError


class ManifestError(CrossLogicError):
    code = "manifest_error"


class BadBundle(ManifestError):
    code = "bad_bundle"


class BundleTooLarge(BadBundle):
    code = "bundle_too_large"
