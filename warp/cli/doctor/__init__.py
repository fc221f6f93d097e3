"""`warp doctor`: whether this machine, and what it depends on, are fit for an agent."""
