"""Reports that another model wrote, read from the formats of the field."""
