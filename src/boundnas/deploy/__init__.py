"""What leaves the house: exported networks."""
