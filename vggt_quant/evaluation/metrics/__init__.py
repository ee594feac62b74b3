"""What the figures mean: pure functions of tensors, one file per question.

`deviation`: how far a variant's outputs are from fp32's, unaligned. `cameras`, `depth`, `clouds`: how far a model's
outputs are from the truth, by the field's protocols, which align what a scene leaves open (frame, scale).

Ground-truth figures are computed on the CPU in float64 and are plain floats. A figure that cannot be had is None: no
valid pixel, one view, an output that is not finite. A mean over what survived would flatter a broken variant.
"""

from vggt_quant.evaluation.metrics.cameras import pose_accuracy
from vggt_quant.evaluation.metrics.clouds import cloud_accuracy, point_error
from vggt_quant.evaluation.metrics.depth import depth_accuracy
from vggt_quant.evaluation.metrics.deviation import camera_errors, depth_errors, output_errors, tensor_error

__all__ = [
    "camera_errors",
    "cloud_accuracy",
    "depth_accuracy",
    "depth_errors",
    "output_errors",
    "point_error",
    "pose_accuracy",
    "tensor_error",
]
