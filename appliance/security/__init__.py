"""API keys and sealed secrets (the only user of cryptography)."""
