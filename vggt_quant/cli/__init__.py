"""`vggt-quant`: the command line."""
