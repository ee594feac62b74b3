"""VGGT's forward pass on the kernels: the same numbers as `model.VGGT` up to rounding, in far less time.

The blocks know no format by name: a packed layer says which operand it multiplies (`operand`), the producer before it
(layer norm, GELU, attention) makes that operand in the same pass over memory, and the layer multiplies it. Weights stay
where the model has them. A pass of few images is replayed as one CUDA graph.
"""

from vggt_quant.fast.forward import FastForward

__all__ = ["FastForward"]
