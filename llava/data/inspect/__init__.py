"""Look at datasets before training on them."""
