"""Sweeps over variants and seeds, and what may be concluded from them: plan, runner, records, stats, reports."""
