"""Usage manifests: signed statements of what a site served, that anybody can check.

The modules decide and never touch the disk or the network; `archive` alone knows the rows of
ledger.db in which sealed manifests lie.
"""
