"""Writes tensors to a safetensors file, whole or not at all."""

import os
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(tensors: dict[str, Tensor], path: Path | str, metadata: dict[str, str] | None = None) -> None:
    """Write under a temporary name in the same folder, then rename.

    Raises:
        OSError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata=metadata)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}; is the disk full?") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
