"""Rate limits: reserve before the work, settle after it."""
