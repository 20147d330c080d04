"""The reference: what public multi-modal ReID code does, rewritten for comparison.

Only the steps that make the difference in speed follow that code. The modules, losses and formulas are this project's
own, so both sides compute the same numbers; the tests check that they do.
"""
