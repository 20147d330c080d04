"""Patch selection."""

SCORES = dict.fromkeys(("sdtps", "centre"))
AGGREGATIONS = dict.fromkeys(("learned", "none"))
