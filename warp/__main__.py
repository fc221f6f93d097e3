"""`python -m warp`, the same as the console script `warp`."""

from __future__ import annotations

from warp.cli.main import main

raise SystemExit(main())
