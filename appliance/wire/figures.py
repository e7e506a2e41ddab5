"""Figures that come from other machines: each fits where it is computed with and stored.

JSON knows integers of any length and floats up to 1e308. One of those in a message of one node must
not reach a division, a timestamp or a column of SQLite that serves all nodes.
"""

from typing import Annotated

import msgspec

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Finite = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
