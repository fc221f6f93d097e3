"""`warp acl`: list, create and delete ACLs, at any Kafka broker."""
