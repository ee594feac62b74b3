"""Accuracy: how far a model's outputs are from the fp32 outputs and from the ground truth."""
