"""What a client may use of an agent in a time: bytes, time of the loop, changes of topics, new connections (KIP-13,
KIP-124, KIP-546, KIP-599, KIP-612). Pure: numbers and the time go in, times to wait come out.

Kafka's quotas hold per broker, and these hold per agent: nothing is counted together between the agents of a cluster.
"""
