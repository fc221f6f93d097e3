"""Load and leaks: what an agent holds under much load, and that it gives back all of it.

Each test drives a real agent process and asserts bounds on counts and bytes, never on how long something took:

* `test_soak`: rounds in which clients come and go, topics are made and deleted, groups rebalance, producers expire and
  jobs merge and delete. After each round nobody is connected any more; from the second on, nothing is left over.
* `test_connections`: 5,000 connections, idle and talking, in the clear and over TLS, and the limit on them.
* `test_partitions`: 10,000 partitions, made, described, written, read, kept over a restart, deleted.
* `test_catch_up`: a consumer that is a million records behind.
* `test_slow_clients`: clients that ask and don't read, that vanish in the middle of frames, that send the largest
  requests there are.

The agent is the product, unchanged; a thread beside it (`probe`) says what only its process knows: tasks, objects by
type, memory once what is free has been given back. `make load` runs them, and prints a table of what they measured;
`make load ARGS="--load-minutes 15"` makes the soak longer.
"""
