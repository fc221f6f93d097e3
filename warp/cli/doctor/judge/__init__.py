"""What the measurements mean: pure functions from facts to findings, with the thresholds."""
