"""A model and a variant in, a packed model and its checkpoint out."""
