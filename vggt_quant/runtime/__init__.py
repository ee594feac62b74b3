"""One job, one process, one machine: jobs, GPUs, locks, cache keys, files."""
