"""What the agents of a cluster share: the catalogue of topics, their configs, producer ids."""
