"""Quantization: a model and a variant become a packed model and its checkpoint."""
