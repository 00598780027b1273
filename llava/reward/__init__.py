"""Stage 3: reinforcement learning on a clinical reward (docs/reward.md)."""
