"""MIMIC-CXR: PhysioNet's raw files -> annotation -> conversations."""
