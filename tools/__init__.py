"""Programs that keep the tree honest; `make` runs them, from the root of the tree."""
