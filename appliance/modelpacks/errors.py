"""Errors of model packs.

ModelPackError
├── BadPack              the file is no pack, is cut off, or was changed
├── PackForged           its signature does not belong to it
├── PublisherUnknown     it is signed with a key that this site does not trust
├── LicenceNotAccepted   nobody accepted its licence for this site yet
├── StoreFull            the disk has no room for it, or cannot be written
├── PackNotWritten       a pack cannot be made of this, or there
├── NoSuchEntry          the catalogue has no model of that name
└── BadCatalogue         the site's own catalogue is not understood
"""

from appliance.domain.errors import CrossLogicError


class ModelPackError(CrossLogicError):
    code = "model_pack_error"


class BadPack(ModelPackError):
    code = "bad_model_pack"


class PackForged(ModelPackError):
    code = "model_pack_forged"


class PublisherUnknown(ModelPackError):
    code = "publisher_unknown"


class LicenceNotAccepted(ModelPackError):
    code = "licence_not_accepted"


class StoreFull(ModelPackError):
    code = "model_store_full"


class PackNotWritten(ModelPackError):
    code = "model_pack_not_written"


class NoSuchEntry(ModelPackError):
    code = "no_such_catalogue_entry"


class BadCatalogue(ModelPackError):
    code = "bad_catalogue"
