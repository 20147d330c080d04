"""The baselines: what public multi-modal ReID code does, written anew for comparison.

Only what makes the difference is done their way; the modules, losses and formulas are this project's own, so that both
sides compute the same numbers, which the tests make sure of.
"""
