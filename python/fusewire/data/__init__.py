"""Real input, checked: images, text, and the samples that travel in the package."""
