"""An image file -> an RGB image -> views -> pixel values for the vision tower."""
