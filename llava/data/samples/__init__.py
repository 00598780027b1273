"""What training reads: conversations on disk -> entries -> samples -> batches."""
