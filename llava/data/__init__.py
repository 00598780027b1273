"""From source files to samples and batches."""
