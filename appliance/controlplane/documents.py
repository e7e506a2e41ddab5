"""Signed documents of a site, each as it was signed, in the order in which they were made."""

from sqlalchemy import Connection, func, insert, select

from appliance.controlplane.site_tables import DOCUMENTS


def store(
    connection: Connection,
    appliance_id: str,
    kind: str,
    document_id: str,
    at_ns: int,
    envelope: bytes,
) -> None:
    """Keep a document; the site's row must be locked, which gives it its number."""
    last = connection.execute(
        select(func.max(DOCUMENTS.c.number)).where(DOCUMENTS.c.appliance_id == appliance_id)
    ).scalar()
    connection.execute(
        insert(DOCUMENTS).values(
            appliance_id=appliance_id,
            number=(last or 0) + 1,
            kind=kind,
            document_id=document_id,
            at_ns=at_ns,
            envelope=envelope,
        )
    )


def newest(connection: Connection, appliance_id: str, kind: str) -> bytes | None:
    """The envelope of the last one of this kind."""
    return connection.execute(
        select(DOCUMENTS.c.envelope)
        .where(DOCUMENTS.c.appliance_id == appliance_id, DOCUMENTS.c.kind == kind)
        .order_by(DOCUMENTS.c.number.desc())
        .limit(1)
    ).scalar()


def by_id(connection: Connection, appliance_id: str, kind: str, document_id: str) -> bytes | None:
    return connection.execute(
        select(DOCUMENTS.c.envelope).where(
            DOCUMENTS.c.appliance_id == appliance_id,
            DOCUMENTS.c.kind == kind,
            DOCUMENTS.c.document_id == document_id,
        )
    ).scalar()


def envelopes(connection: Connection, appliance_id: str, kind: str) -> list[bytes]:
    """All of a kind, oldest first."""
    rows = connection.execute(
        select(DOCUMENTS.c.envelope)
        .where(DOCUMENTS.c.appliance_id == appliance_id, DOCUMENTS.c.kind == kind)
        .order_by(DOCUMENTS.c.number)
    )
    return list(rows.scalars())
