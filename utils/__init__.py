"""What every package needs: errors, seeding, logging, files, several processes."""
