"""Scripts over the packages, each a thin file beside a folder of its parts."""
