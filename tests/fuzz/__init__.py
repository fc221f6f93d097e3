"""Hostile input, found by coverage: what strangers can send, thrown at the code that reads it.

`targets/` has one file per kind of input: a function `check` that takes any bytes and raises when the product does
what it must not, seeds from the builders that other tests use, and a few words of the format. Where a slow and obvious
reader exists (tests/reference) the target compares: the same bytes accepted, the same values read.

Two things run them. `python -m tests.fuzz` (`make fuzz`) lets libFuzzer, by way of atheris, look for inputs that take
new ways through the code, in the fuzz build (setup.py): clang's checks of every address and of undefined behaviour,
Cython's bounds checks, and counters in native code; Python code is instrumented when it is imported. `test_replay.py`
gives the corpora and every input that has ever found something to the same targets on whatever build is in place.

Leaks are not looked for: CPython keeps what it needs until the process ends, and keeps some of it for ever.
"""
