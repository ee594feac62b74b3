"""Where the weights of a VGGT come from: the hub, a file, a seed."""
