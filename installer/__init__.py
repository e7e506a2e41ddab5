"""The installer: looks, plans, applies and keeps a journal. Standard library only."""
