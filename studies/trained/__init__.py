"""From trained weights to a family, against pruning and against networks trained from scratch."""
