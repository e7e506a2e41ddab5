"""The agent: runs on every GPU node and keeps its engines running."""
