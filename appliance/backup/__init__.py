"""Backups of a site: taken while it serves, encrypted, tried, and put back."""
