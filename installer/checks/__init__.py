"""Preflight: what a server must be and have before the appliance is installed on it."""
