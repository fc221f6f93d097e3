"""What is seen and timed: sockets, files, stores. Nothing here decides what is good."""
