"""Errors of the registry.

RegistryError
├── NotFound          no living object of that id or name (or not in that tenant)
├── Ambiguous         the name stands for several objects; say of which tenant or environment
├── AlreadyExists     the name is taken among the living
├── InUse             it cannot be deleted while others rely on it
├── CapacityExceeded  more would be promised than was measured, less the headroom
├── CapacityUnknown  nothing was measured yet
├── InvalidValue      a name, a URL, a number or another value is not acceptable
├── ModelUnreadable   the file of a model is missing, cut short, or no model
├── TokenRefused       a node's token is unknown, used, expired, revoked, or for another node
├── CertificateRefused a node's certificate was revoked, or is not of this site
└── OtherSecrets      the site's secrets are not those this registry was made with
"""

from appliance.domain.errors import CrossLogicError


class RegistryError(CrossLogicError):
    code = "registry_error"


class NotFound(RegistryError):
    code = "not_found"


class Ambiguous(RegistryError):
    code = "ambiguous_name"


class AlreadyExists(RegistryError):
    code = "already_exists"


class InUse(RegistryError):
    code = "in_use"


class CapacityExceeded(RegistryError):
    code = "capacity_exceeded"


class CapacityUnknown(RegistryError):
    code = "capacity_unknown"


class InvalidValue(RegistryError):
    code = "invalid_value"


class ModelUnreadable(RegistryError):
    code = "model_unreadable"


class OtherSecrets(RegistryError):
    code = "other_secrets"


class TokenRefused(RegistryError):
    code = "token_refused"


class CertificateRefused(RegistryError):
    code = "certificate_refused"
