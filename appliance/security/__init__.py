"""API keys, secret files, sealed values. The only package that uses `cryptography`."""
