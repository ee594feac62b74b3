"""Processes and machines: jobs, GPUs, locks, cache keys, files."""
