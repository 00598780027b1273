"""Images and context -> reports: the one way for every caller that wants a report."""
