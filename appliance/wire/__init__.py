"""Versioned messages and meeting places shared by the programs of a site."""
