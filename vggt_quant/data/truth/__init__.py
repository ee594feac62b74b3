"""Ground truth of the pixels that the model sees: its parts, and what layouts of scenes read it with.

Truth follows the photos through VGGT's preprocessing (`placement`): what is resized, cropped or padded there is here as
well, and depth is taken from the nearest sample (`sampling`), never blended across an edge.
"""
