"""The tables of the control plane, in one collection; each noun's module defines its own.

- Moments are `…_ns`: nanoseconds since 1970 UTC. Hours are `hour_s`: seconds, start of the hour.
- Quantities of tokens and amounts of money (`…_micros`, millionths of the currency's main unit)
  are integers of 64 bits.
"""

from typing import Final

from sqlalchemy import MetaData

METADATA: Final = MetaData()
