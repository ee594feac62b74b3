"""Ground truth of the pixels that the model sees, and the readers that scene layouts share.

The ground truth is resized, cropped and padded as VGGT's preprocessing does with the photos (`placement`). Depth is
taken from the nearest sample (`sampling`), never blended across an edge.
"""
