"""Errors of storage.

StorageError
├── DatabaseUnavailable   the file cannot be opened, read or written
├── DatabaseDamaged       SQLite says the file is not sound
└── SchemaTooNew          a newer version of the product wrote this file
"""

from appliance.domain.errors import CrossLogicError


class StorageError(CrossLogicError):
    code = "storage_error"


class DatabaseUnavailable(StorageError):
    code = "database_unavailable"


class DatabaseDamaged(StorageError):
    code = "database_damaged"


class SchemaTooNew(StorageError):
    code = "schema_too_new"
