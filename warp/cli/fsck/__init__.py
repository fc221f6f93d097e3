"""`warp fsck`: proves that metadata and object store agree."""
