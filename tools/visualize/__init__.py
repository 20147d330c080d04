"""The pictures of tools.visualize, one file each."""
