"""Photos, scenes and their ground truth: read, drawn or downloaded."""
