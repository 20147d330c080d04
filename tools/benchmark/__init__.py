"""What tools.benchmark measures, a module per subject, beside the way the peers do it (`peers`)."""
