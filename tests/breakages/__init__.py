"""Breaks the product on purpose, one way at a time: a test has to notice, or the tests prove less than they seem to."""
