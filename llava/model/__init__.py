"""Tower, projector and language model, and how they are joined, saved and loaded."""
