"""Errors of the control plane, apart from those of Stripe.

CrossLogicError
└── ControlPlaneError
    ├── ControlPlaneUnready      there is no control plane in this home yet
    ├── DatabaseUnavailable      the database cannot be opened, read or written
    ├── SchemaTooNew             a newer version of the product wrote this database
    ├── BadDatabaseUrl           the address of the database is not understood
    ├── OtherSigningKey          the database belongs to another signing key
    ├── UnknownSite              no site of this name or id
    ├── SiteExists               another site has this name, id or key
    ├── EnrolmentRefused         the code is wrong, used or too old, or the introduction is
    ├── RequestRefused           a signed request whose signature, time or nonce does not hold
    ├── OperatorDenied           the bearer token of the operator API is missing or wrong
    ├── NotPossible              what was asked does not fit the state of the site
    ├── TooManyRequests          this appliance asks more often than it may
    ├── UploadTooLarge           a body, or a bundle, past its size
    └── BadUpload                a body that is not what it should be
"""

from appliance.domain.errors import CrossLogicError


class ControlPlaneError(CrossLogicError):
    code = "control_plane_error"


class ControlPlaneUnready(ControlPlaneError):
    code = "control_plane_unready"


class DatabaseUnavailable(ControlPlaneError):
    code = "database_unavailable"


class SchemaTooNew(ControlPlaneError):
    code = "schema_too_new"


class BadDatabaseUrl(ControlPlaneError):
    code = "bad_database_url"


class OtherSigningKey(ControlPlaneError):
    code = "other_signing_key"


class UnknownSite(ControlPlaneError):
    code = "unknown_site"


class SiteExists(ControlPlaneError):
    code = "site_exists"


class EnrolmentRefused(ControlPlaneError):
    code = "enrolment_refused"


class RequestRefused(ControlPlaneError):
    code = "request_refused"


class OperatorDenied(ControlPlaneError):
    code = "operator_denied"


class NotPossible(ControlPlaneError):
    code = "not_possible"


class TooManyRequests(ControlPlaneError):
    """`retry_after_s`: when it may ask again."""

    code = "too_many_requests"

    def __init__(self, message: str, *, next_step: str = "", retry_after_s: int = 1) -> None:
        super().__init__(message, next_step=next_step)
        self.retry_after_s = retry_after_s


class UploadTooLarge(ControlPlaneError):
    code = "upload_too_large"


class BadUpload(ControlPlaneError):
    code = "bad_upload"
