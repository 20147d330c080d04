"""Look a data set over before training on it."""
