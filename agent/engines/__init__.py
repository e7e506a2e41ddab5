"""The engines an agent can start."""
