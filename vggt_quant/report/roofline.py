"""The roofline of a GPU: a lower bound on the time of a forward pass, from its operations and bytes. No torch.

Source: Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model".
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Peaks:
    """What a GPU does at most by its maker's data sheet: 10^12 operations a second without sparsity, and memory."""

    float32: float
    tf32: float
    bfloat16: float
    float16: float
    """With sums in float16, which GeForce cards add twice as fast as sums in float32."""
    int8: float
    float8: float | None
    """With sums in float32; None where the GPU multiplies no float8."""
    terabytes_per_second: float

    def rate(self, arithmetic: str) -> float | None:
        """10^12 operations a second in an arithmetic of `benchmark.operations`; None where the GPU lacks it."""
        return self.tf32 / 3 if arithmetic == "tf32x3" else getattr(self, arithmetic)


def _peaks(
    float32: float, tf32: float, bfloat16: float, int8: float, float8: float | None, bandwidth: float,
    float16: float | None = None,
) -> Peaks:  # fmt: skip
    return Peaks(
        float32=float32,
        tf32=tf32,
        bfloat16=bfloat16,
        float16=float16 or bfloat16,
        int8=int8,
        float8=float8,
        terabytes_per_second=bandwidth,
    )


_A100 = (19.5, 156.0, 312.0, 624.0, None)
_H100 = (66.9, 494.7, 989.4, 1978.9, 1978.9)

GPUS = {
    # NVIDIA A100 Tensor Core GPU data sheet.
    "NVIDIA A100-SXM4-40GB": _peaks(*_A100, 1.555),
    "NVIDIA A100-SXM4-80GB": _peaks(*_A100, 2.039),
    "NVIDIA A100-PCIE-40GB": _peaks(*_A100, 1.555),
    "NVIDIA A100 80GB PCIe": _peaks(*_A100, 1.935),
    # NVIDIA H100 and H200 Tensor Core GPU data sheets and the H100 architecture paper; the sheets double the tensor
    # rates by sparsity.
    "NVIDIA H100 80GB HBM3": _peaks(*_H100, 3.35),
    "NVIDIA H100 PCIe": _peaks(51.2, 378.0, 756.0, 1513.0, 1513.0, 2.039),
    "NVIDIA H100 NVL": _peaks(60.0, 417.5, 835.5, 1670.5, 1670.5, 3.9),
    "NVIDIA H200": _peaks(*_H100, 4.8),
    # NVIDIA Blackwell data sheets: HGX and DGX B200; the higher figure where they differ.
    "NVIDIA B200": _peaks(80.0, 1125.0, 2250.0, 4500.0, 4500.0, 8.0),
    # NVIDIA A40, RTX A6000 and the Ampere GA102 architecture paper.
    "NVIDIA A40": _peaks(37.4, 74.8, 149.7, 299.3, None, 0.696),
    "NVIDIA RTX A6000": _peaks(38.7, 77.4, 154.8, 309.7, None, 0.768),
    "NVIDIA GeForce RTX 3090": _peaks(35.6, 35.6, 71.0, 284.0, None, 0.936, float16=142.0),
    # NVIDIA L4, L40S and RTX 6000 Ada data sheets and the Ada architecture paper.
    "NVIDIA L4": _peaks(30.3, 60.0, 121.0, 242.5, 242.5, 0.3),
    "NVIDIA L40S": _peaks(91.6, 183.0, 362.1, 733.0, 733.0, 0.864),
    "NVIDIA RTX 6000 Ada Generation": _peaks(91.1, 182.1, 364.2, 728.5, 728.5, 0.96),
    "NVIDIA GeForce RTX 4090": _peaks(82.6, 82.6, 165.2, 660.6, 330.3, 1.008, float16=330.3),
    # NVIDIA RTX Blackwell architecture paper.
    "NVIDIA GeForce RTX 5090": _peaks(104.8, 104.8, 209.5, 838.0, 419.0, 1.792, float16=419.0),
}
"""By the name that the driver gives. GPUs under another name have no roofline."""


def least_ms(operations: dict[str, int], least_bytes: int | None, device_name: str) -> float | None:
    """The least time of a pass: that of its products one after another, or that of its bytes if it is longer.

    Args:
        operations: By arithmetic, as `benchmark.operations.Work` counts them.
        least_bytes: Read and written at least.
        device_name: As `Provenance.device_name`.

    Returns:
        Milliseconds, or None where nothing was counted or the GPU's rates are not known.
    """
    peaks = GPUS.get(device_name)
    if peaks is None or least_bytes is None or not operations:
        return None
    rates = [peaks.rate(arithmetic) for arithmetic in operations]
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates):
        return None
    multiplying_ms = sum(count / rate for count, rate in zip(operations.values(), known, strict=True)) * 1e-9
    return max(multiplying_ms, least_bytes / peaks.terabytes_per_second * 1e-9)
