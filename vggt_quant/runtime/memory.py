"""Memory of this process: its use, its limit, and how the allocators keep freed memory."""

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterator
from pathlib import Path


def resident_bytes() -> int:
    """Resident set of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_resident_bytes() -> int:
    """Largest resident set that this process ever had (its parent's before `exec` not counted)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def forget_peak_resident() -> None:
    """Let `peak_resident_bytes` count from now on; where the kernel forbids that, it counts from the start."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: str) -> int:
    """The peak so far: that of CUDA's allocator, or of this process's resident set on `cpu`."""
    if device != "cuda":
        return peak_resident_bytes()
    import torch  # not on top: parents and parsers ask for the rest of this module

    return int(torch.cuda.max_memory_allocated())


@contextlib.contextmanager
def memory_limit(megabytes: int | None) -> Iterator[None]:
    """Let this process hold at most this many 10^6 bytes of private memory while the block runs; None sets no limit.

    The limit is on data, not on address space, because torch and CUDA reserve address space that they never use. It is
    lifted again after the block, so that there is memory to write down what happened.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if megabytes:
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes * 1_000_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def has_memory_limit() -> bool:
    """Whether this process has a limit on its private memory."""
    return resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY


def keep_freed_memory() -> bool:
    """Tell glibc to keep up to 1 GiB of freed memory for this process; False where the C library is another.

    Otherwise glibc may return freed memory and request it again, page by page, in every pass or in none, as the heap
    happens to lie: one variant took 53 to 112 ms from process to process, and 47 to 61 with this.
    MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ in the environment do the same (mallopt(3)).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    trim_threshold, mmap_threshold = -1, -3
    return bool(mallopt and mallopt(trim_threshold, 1 << 30) and mallopt(mmap_threshold, 32 << 20))


def let_segments_grow() -> None:
    """Have PyTorch's CUDA allocator, not used yet, take memory in segments that grow, unless the environment says how.

    With segments of fixed sizes up to a fifth of the memory was unused for VGGT-1B, in pieces too small for its
    tensors.
    """
    if not os.environ.keys() & {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}:
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
