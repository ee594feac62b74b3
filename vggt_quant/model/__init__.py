"""VGGT itself; knows nothing of quantization."""
