"""Handlers: each translates one Kafka request into calls on services, and their results into the response."""
