"""Counting tokens and keeping the append-only ledger."""
