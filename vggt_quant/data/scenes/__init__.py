"""A folder becomes a scene: photos as the model sees them, and the ground truth of the same pixels.

Three layouts are read: a plain folder of photos (no ground truth), ETH3D's (`eth3d`) and 7-Scenes' (`seven_scenes`).
Truth follows the photos through VGGT's preprocessing (`placement`): what is resized, cropped or padded there is here
as well, and depth is taken from the nearest sample, never blended across an edge.
"""

from vggt_quant.data.scenes.scene import Scene, find_scenes, load_scene
from vggt_quant.data.scenes.truth import Truth, restore_truth, store_truth

__all__ = ["Scene", "Truth", "find_scenes", "load_scene", "restore_truth", "store_truth"]
