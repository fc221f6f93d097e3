"""`warp cost`: what an agent asks of its object store, per GB of records and per month, and what that costs."""
