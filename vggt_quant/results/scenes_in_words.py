"""Describe the photos of a result in words."""

from vggt_quant.results.schema import ImagesResult

DRAWN = "drawn"
"""Stands for a folder: rooms that the project draws itself."""


def scenes_in_words(images: ImagesResult) -> str:
    """`64 photos of 112 x 112 pixels (crop) in 16 drawn rooms, room_0000 to room_0015, skipped files: 1`."""
    first, *others = images.scenes
    count = sum(scene.shape[0] for scene in images.scenes)
    skipped = sum(len(scene.skipped) for scene in images.scenes)
    end = f", skipped files: {skipped}" if skipped else ""
    photos = f"{count} photos {_size(images)} ({images.mode})"
    if not others:
        return f"{photos} from {first.folder}{end}"
    where = "drawn rooms" if images.folder == DRAWN else f"scenes in {images.folder}"
    return f"{photos} in {len(images.scenes)} {where}, {first.name} to {others[-1].name}{end}"


def timed_in_words(images: ImagesResult) -> str:
    """`16 scenes (time: 4 images of 112 x 112)`: what is compared, and the first scene, which is timed."""
    count, _, height, width = images.scenes[0].shape
    timed = f"{count} images of {height} x {width}"
    return timed if len(images.scenes) == 1 else f"{len(images.scenes)} scenes (time: {timed})"


def _size(images: ImagesResult) -> str:
    sizes = {tuple(scene.shape[2:]) for scene in images.scenes}
    return "of {} x {} pixels".format(*sizes.pop()) if len(sizes) == 1 else f"of {len(sizes)} sizes"
