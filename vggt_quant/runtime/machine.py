"""The machine that a measurement ran on: GPUs, processor, memory. No torch: parents and parsers ask here too."""

import contextlib
import ctypes
import datetime
import errno
import fcntl
import importlib.metadata
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

KERNEL_LIBRARIES = ("triton", "flash-attn-4", "torchao", "bitsandbytes", "humming-kernels", "sageattention")
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a disk that knows no locks answers."""


def kernel_libraries() -> dict[str, str]:
    """Versions of the installed libraries that bring kernels along, without importing them."""
    installed = {name for name in KERNEL_LIBRARIES if any(importlib.metadata.distributions(name=name))}
    return {name: importlib.metadata.version(name) for name in sorted(installed)}


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def torch_version() -> str:
    """Version of the installed torch, without importing it."""
    return importlib.metadata.version("torch")


def gpu_names() -> list[str]:
    """Names of the NVIDIA GPUs that this process may use, without importing torch; empty where there is none."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    names = [line.strip() for line in run.stdout.splitlines() if line.strip()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names if visible is None else _visible(names, visible.split(","))


def _visible(names: list[str], entries: list[str]) -> list[str]:
    """What CUDA makes of CUDA_VISIBLE_DEVICES: nothing counts from the first entry on that names no GPU, such as -1."""
    chosen = []
    for entry in map(str.strip, entries):
        if entry.isdigit() and int(entry) < len(names):
            chosen.append(names[int(entry)])
        elif entry.startswith(("GPU-", "MIG-")) and names:
            chosen.append(names[0])  # a UUID: all GPUs of a machine that has them are of one kind
        else:
            break
    return chosen


def resolve_device(device: str) -> str:
    """`auto` becomes `cuda` where there is a GPU, else `cpu`.

    Raises:
        ValueError: Not one of auto, cpu, cuda; or cuda without a GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is {device!r}; choose auto, cpu or cuda.")
    if device == "auto":
        return "cuda" if gpu_names() else "cpu"
    if device == "cuda" and not gpu_names():
        raise ValueError("device is cuda, but nvidia-smi finds no GPU here; use --device cpu.")
    return device


def try_lock(file: IO) -> bool:
    """Lock an open file for this process and its heirs; False on a disk that knows no locks, as some network volumes.

    Raises:
        BlockingIOError: Another process holds it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def cpu_name() -> str:
    """The processor's model name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """Name of the GPU or processor behind `cpu` or `cuda`, without importing torch."""
    return gpu_names()[0] if device == "cuda" else cpu_name()


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """Commit of the sources that run: VGGT_QUANT_COMMIT where an image or archive sets it, else the checkout's.

    `-dirty` is appended if files changed; None where nobody knows.
    """
    folder = Path(__file__).parents[2]
    if "VGGT_QUANT_COMMIT" in os.environ or not (folder / ".git").exists():
        return os.environ.get("VGGT_QUANT_COMMIT")
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def keep_freed_memory() -> bool:
    """Tell glibc to keep up to 1 GiB of freed memory for this process; False where the C library is another.

    It would else give freed memory back and fetch it again, page by page, in every pass or in none, as the heap happens
    to lie: one variant took 53 to 112 ms from process to process, and 47 to 61 with this. MALLOC_TRIM_THRESHOLD_ and
    MALLOC_MMAP_THRESHOLD_ in the environment do the same (mallopt(3)).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    trim_threshold, mmap_threshold = -1, -3
    return bool(mallopt and mallopt(trim_threshold, 1 << 30) and mallopt(mmap_threshold, 32 << 20))


def let_segments_grow() -> None:
    """Have PyTorch's CUDA allocator, not used yet, take memory in segments that grow, unless the environment says how.

    Of segments of fixed sizes up to a fifth lay unused beside the tensors of VGGT-1B, in pieces too small for the next.
    """
    if not os.environ.keys() & {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}:
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"


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


def gpu_state() -> dict[str, float]:
    """Clocks, temperature and power of the first GPU that this process may use; empty where no driver tells them."""
    fields = ("clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu", "power.draw")
    names = ("sm_clock_mhz", "sm_clock_max_mhz", "memory_clock_mhz", "temperature_c", "power_w")
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "-i", first]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return dict(zip(names, map(float, run.stdout.splitlines()[0].split(",")), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}


@contextlib.contextmanager
def memory_limit(megabytes: int | None) -> Iterator[None]:
    """Let this process hold at most this many 10^6 bytes of private memory while the block runs; None sets no limit.

    The limit is on data, not on address space, because torch and CUDA reserve address space that they never use. It is
    lifted again behind the block, so that there is memory to write down what happened.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if megabytes:
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes * 1_000_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def has_memory_limit() -> bool:
    """Whether this process is held to an amount of private memory."""
    return resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY


def busy_seconds() -> tuple[float, float]:
    """Processor seconds that the whole machine has worked since its start, and those of this process."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK"), time.process_time()
