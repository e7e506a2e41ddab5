"""Bursts: GPU nodes lent from a cloud for a while, through SkyPilot."""
