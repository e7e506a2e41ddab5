"""Agents, heartbeats and the reconcile loop: feeds the scheduler."""
