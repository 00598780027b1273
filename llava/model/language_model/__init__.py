"""Qwen3 made bidirectional and trained to unmask."""
