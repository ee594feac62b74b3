"""Photos, scenes and their ground truth: reading, rendering and downloading them."""
