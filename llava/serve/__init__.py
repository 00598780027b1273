"""A page and an API to draft reports with: many requests, one model, decoded together."""
