"""Several test files share these helpers: miniature data sets, runs and references."""
