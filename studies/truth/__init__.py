"""Ground truth: every network of a small space trained alone, beside supernets of the space."""
