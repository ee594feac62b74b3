"""vggt_quant: quantize VGGT by every method that matters, and measure each."""
