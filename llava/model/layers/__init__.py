"""The passes over Qwen3's decoder layers: attention, caches of keys, the packed training batch."""
