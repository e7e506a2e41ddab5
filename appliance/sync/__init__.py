"""Seals windows of the ledger, and carries manifests to the control plane by wire or by hand."""
