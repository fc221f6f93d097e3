"""`warp group`: list, describe, reset and delete consumer groups, of any Kafka broker."""
