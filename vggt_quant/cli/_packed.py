"""Refuse, where an original model is required, a packed checkpoint and what is none at all. Imports no torch."""

from pathlib import Path

from safetensors import SafetensorError, safe_open


def refuse_packed(model: str) -> None:
    """Refuse a packed checkpoint, which can be measured but not be quantized or compared with its variants.

    Raises:
        ValueError: It is one, or it is called .safetensors and is none.
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
    except (OSError, SafetensorError) as error:
        cure = "delete it and fetch it again"
        raise ValueError(f"{file.resolve()} is truncated or no safetensors file ({error}); {cure}.") from error
