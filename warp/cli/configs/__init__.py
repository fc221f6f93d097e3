"""`warp topic config` and `warp cluster config`."""
