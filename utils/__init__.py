"""Errors, seeding, logging and several processes: what every package needs and none owns."""
