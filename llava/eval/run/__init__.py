"""The run of an evaluation: its folder, its processes under lmms-eval, and what they leave."""
