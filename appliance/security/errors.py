"""Errors of security.

SecurityError
├── SecretMissing    a secret file is not there
├── SecretExposed    a secret file or its folder is open to others
├── SecretDamaged    a secret file does not hold what it should
├── SealBroken       a sealed value was changed, moved, or sealed with another key
├── BadPublicKey     what should be an Ed25519 public key is none
└── BadCertificateRequest  what asks for a certificate of the site's CA is not fit for one
"""

from appliance.domain.errors import CrossLogicError


class SecurityError(CrossLogicError):
    code = "security_error"


class SecretMissing(SecurityError):
    code = "secret_missing"


class SecretExposed(SecurityError):
    code = "secret_exposed"


class SecretDamaged(SecurityError):
    code = "secret_damaged"


class SealBroken(SecurityError):
    code = "seal_broken"


class BadPublicKey(SecurityError):
    code = "bad_public_key"


class BadCertificateRequest(SecurityError):
    code = "bad_certificate_request"
