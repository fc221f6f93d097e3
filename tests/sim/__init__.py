"""The deterministic simulator: whole agents, their clients and their stores in one thread, in virtual time.

A seed decides everything: delays, the cut of bytes into chunks, faults, crashes. The same seed gives the same history.
"""
