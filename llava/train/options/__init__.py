"""Options of a training run: which there are, their ranges, what excludes what, their parser."""
