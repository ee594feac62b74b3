"""The sources of a VGGT's weights: the hub, a file, or a seed."""
