"""The OpenAI-compatible endpoint on the LAN."""
