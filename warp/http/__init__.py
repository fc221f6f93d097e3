"""The HTTP face of an agent: health checks and metrics."""
