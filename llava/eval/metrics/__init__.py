"""Scores of a set of reports, and how far each could move by chance."""
