"""A training run on disk and as processes: its folder, checkpoints, exit codes, guards."""
