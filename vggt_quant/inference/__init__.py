"""Running a checkpoint: the engine, its kernels and attention backends, and `load`."""
