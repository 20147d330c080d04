"""The pictures of `tools/visualize.py`, one file each."""
