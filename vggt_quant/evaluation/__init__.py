"""How far a model's outputs are from fp32's and from the ground truth."""
