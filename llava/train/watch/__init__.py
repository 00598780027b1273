"""What a run shows of itself: metrics, progress, sample reports."""
