"""`warp inspect`: what is inside of a segment, and where the data of a log are."""
