"""Train variants of an experiment with several seeds and report which differences are real."""
