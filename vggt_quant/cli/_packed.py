"""Refuse a packed checkpoint where an original model is required. Imports no torch."""

from pathlib import Path

from safetensors import SafetensorError, safe_open


def refuse_packed(model: str) -> None:
    """Refuse a packed checkpoint, which can be measured but not be quantized or compared with its variants.

    Raises:
        ValueError: It is one.
    """
    path = Path(model).expanduser()
    file = path / "model.safetensors" if path.is_dir() else path
    if file.is_file() and file.suffix == ".safetensors" and _is_packed(file):
        raise ValueError(
            f"--model {model} is a packed checkpoint, not an original model: give the model that it was made from, or"
            f" measure this one alone: vggt-quant speed --packed {file} --images FOLDER (or accuracy)."
        )


def _is_packed(file: Path) -> bool:
    try:
        with safe_open(file, framework="np") as opened:
            return "vggt_quant" in (opened.metadata() or {})
    except (OSError, SafetensorError):
        return False  # whoever reads it says what is wrong
