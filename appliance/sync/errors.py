"""Errors of synchronisation.

SyncError
├── SyncOffline          the settings say that nothing leaves the site
├── NotEnrolled          no control plane is known to this site
├── NotPinned            documents came, and no control plane's key is pinned to check them with
├── BadEnrolmentCode     the code is mistyped, or the control plane is not the one it names
├── BadControlPlaneUrl   the URL is not one that this appliance speaks to
├── ControlPlaneAway     it cannot be reached, or did not answer in time
├── ControlPlaneRefused  it answered with an error
├── ReceiptRefused       a receipt contradicts what this site knows of itself
├── ReceiptSuperseded    a newer receipt was applied before
├── EntitlementRefused   an entitlement is not for this site, or older than the installed one
├── GrantRefused         an epoch grant does not fit this site
├── DocumentRefused      another document of the control plane is not acceptable
├── OtherManifestKey     the key on the disk is not the one that signs this site's manifests
├── KeyUnused            nothing was signed with today's key yet, so it is not rotated
├── NoSuchRecord         no record has that id, or it is another tenant's
├── NotSealedYet         the window of that record is still open
├── ManagementFrozen     the entitlement has run out: nothing new until it is renewed
├── BundleUnreadable     a file that was carried here cannot be read, or is no file for this place
├── BundleExists         the folder that is carried holds another bundle of this name
├── CarrierUnusable      what should be carried is no folder, or may not be written
├── CarrierFull          it has no room
├── CarrierLost          it failed, or was taken out
└── CarrierUnreliable    it does not give back what was written
"""

from appliance.domain.errors import CrossLogicError


class SyncError(CrossLogicError):
    code = "sync_error"


class SyncOffline(SyncError):
    code = "sync_offline"


class NotEnrolled(SyncError):
    code = "not_enrolled"


class NotPinned(SyncError):
    code = "control_plane_not_pinned"


class BadEnrolmentCode(SyncError):
    code = "bad_enrolment_code"


class BadControlPlaneUrl(SyncError):
    code = "bad_control_plane_url"


class ControlPlaneAway(SyncError):
    code = "control_plane_away"


class ControlPlaneRefused(SyncError):
    """`wire_code` is the control plane's own; `retry` says whether waiting may help."""

    code = "control_plane_refused"

    def __init__(
        self, message: str, *, next_step: str = "", wire_code: str = "", status: int = 0
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.wire_code = wire_code
        self.status = status


class ReceiptRefused(SyncError):
    code = "receipt_refused"


class ReceiptSuperseded(SyncError):
    code = "receipt_superseded"


class EntitlementRefused(SyncError):
    code = "entitlement_refused"


class GrantRefused(SyncError):
    code = "grant_refused"


class DocumentRefused(SyncError):
    code = "document_refused"


class OtherManifestKey(SyncError):
    code = "other_manifest_key"


class NoSuchRecord(SyncError):
    code = "no_such_record"


class NotSealedYet(SyncError):
    code = "not_sealed_yet"


class KeyUnused(SyncError):
    code = "manifest_key_unused"


class ManagementFrozen(SyncError):
    code = "management_frozen"


class BundleUnreadable(SyncError):
    code = "bundle_unreadable"


class BundleExists(SyncError):
    code = "bundle_exists"


class CarrierUnusable(SyncError):
    code = "carrier_unusable"


class CarrierFull(SyncError):
    code = "carrier_full"


class CarrierLost(SyncError):
    code = "carrier_lost"


class CarrierUnreliable(SyncError):
    code = "carrier_unreliable"
