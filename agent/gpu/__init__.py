"""The truth about this node's GPUs: read from NVIDIA's library, judged, and remembered."""
