"""The console script `warp`: one module per command, loaded only when its command is called."""
