"""Photo files: which extensions count, how a file is opened and decoded, and why it cannot be used."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

# Their plugins only recognise the format, or start Ghostscript (EPS), or need Windows (WMF).
NOT_PHOTO_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"})
# Phones write these. Pillow reads them only with a plugin, so the message names the reason, not "no photo found".
HEIC_EXTENSIONS = frozenset({".heic", ".heif"})
# What Pillow's decoders were seen to raise on damaged files.
DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, RuntimeError, MemoryError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip


def photo_extensions() -> frozenset[str]:
    """Lower-case extensions, with the dot, of the files that count as photos."""
    registered = Image.registered_extensions()
    return HEIC_EXTENSIONS | {extension for extension, name in registered.items() if name not in NOT_PHOTO_FORMATS}


def decode(path: Path) -> Image.Image:
    """Read every pixel, in the mode of the file."""
    # Pillow warns of odd metadata and of more than 89 megapixels; neither changes a pixel. It refuses twice as many.
    with warnings.catch_warnings(action="ignore"), open_photo(path) as image:
        image.load()
        return image.copy()


def open_photo(path: Path) -> Image.Image:
    """An image whose pixels are not read yet, so that its size costs nothing."""
    # Loads every plugin. A file's content decides its format, so a forbidden one is forbidden under any name.
    Image.init()
    return Image.open(path, formats=[name for name in Image.OPEN if name not in NOT_PHOTO_FORMATS])


def explain(path: Path, error: BaseException) -> str:
    """Why a file cannot be used, in words that follow "cannot be used"."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, Pillow's limit for one image"
    if isinstance(error, UnidentifiedImageError):
        heic = path.suffix.lower() in HEIC_EXTENSIONS
        return "HEIC, which Pillow cannot read: convert it to JPEG" if heic else "not an image that Pillow knows"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"damaged or unreadable: {' '.join(reason.split()) or type(error).__name__}"


def show(name: str | Path) -> str:
    """A name as it is, or quoted with escapes when it holds line breaks or bytes that are no text."""
    return str(name) if str(name).isprintable() else repr(str(name))
