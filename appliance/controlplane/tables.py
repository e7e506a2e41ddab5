"""Every table of the control plane: importing this makes the collection whole.

A module that defines tables has a line here, or its tables are never made.
"""

from appliance.controlplane import identity, outbox_table, stripe_tables
from appliance.controlplane.schema import METADATA

__all__ = ["METADATA", "identity", "outbox_table", "stripe_tables"]
