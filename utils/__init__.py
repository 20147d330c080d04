"""Errors, seeding and logging: what every package needs and none owns."""
