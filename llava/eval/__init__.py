"""From reports to scores: metrics, the lmms-eval adapter."""
