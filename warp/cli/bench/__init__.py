"""`warp bench`: load for any Kafka broker through librdkafka, and what it measured.

The command starts worker processes (`worker`), each a producer or a consumer, tells them all when to begin, and adds up
what they report every second. Nothing here is special to Warp: the same command measures another broker.
"""
