"""The health checks of a site: what an administrator would look at, and what to do about it."""
