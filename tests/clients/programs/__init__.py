"""Group members in Python, each a program of its own; see tests/clients/members.py."""
