"""Draw pictures of a checkpoint, one module per picture."""
