"""What several test files share: miniature data sets, runs, references."""
