"""A table that shows a whole topic of the live stream."""

from appliance.wire.stream import Topic
from console.store import Changes, Store
from console.widgets.live_table import LiveTable


def keep(table: LiveTable, store: Store, changes: Changes, topic: Topic) -> None:
    """Bring a table that shows a whole topic to what the store has."""
    rows = store.table(topic)
    if topic in changes.whole:
        table.replace(rows)
    elif changes.touches(topic):
        changed = {row_id: rows[row_id] for row_id in changes.changed(topic) if row_id in rows}
        table.patch(changed, changes.ended(topic))
