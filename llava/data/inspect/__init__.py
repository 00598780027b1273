"""A look at datasets before they are trained on."""
