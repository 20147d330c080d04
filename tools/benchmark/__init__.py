"""Measure every part of a run side by side with a reference implementation, one module per subject."""
