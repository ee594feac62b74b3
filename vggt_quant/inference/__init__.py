"""A checkpoint made ready to run."""
