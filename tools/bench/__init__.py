"""What tools/benchmark.py measures, a module per subject, beside the way the peers do it (`peers`)."""
