"""`warp why-slow` against a real agent, as a user types it."""

from __future__ import annotations

import json

from tests.process.conftest import Spawn, run_warp


def test_why_slow_shows_what_has_just_been_produced(spawn: Spawn) -> None:
    running = spawn.agent()
    address = running.http.removeprefix("http://")
    code, empty, error = run_warp("why-slow", "--http", address)
    assert (code, error) == (0, "")
    assert empty.startswith("Produce requests of the last 5 minutes, slowest first: none\n")
    assert run_warp("produce", "t", "--bootstrap", running.bootstrap, stdin=b"a\nb\n")[0] == 0
    code, text, error = run_warp("why-slow", "--http", address)
    assert (code, error) == (0, "")
    assert text.count(" NONE ") >= 1
    told = json.loads(run_warp("why-slow", "--http", address, "--json")[1])
    assert told == {**json.loads(running.get("/v1/trace/last")[1]), "now_ms": told["now_ms"]}
    (row, *_) = told["produce"]["last"]
    phases = ("check", "backlog", "buffer", "seal", "upload", "order", "commit", "answer")
    assert abs(row["total_ms"] - sum(row[f"{phase}_ms"] for phase in phases)) < 0.01
    assert told["settings"]["requests_are_free"]
    assert told["put"] is None
    assert running.stop() == 0
    code, _, error = run_warp("why-slow", "--http", address)
    assert code == 1
    assert error.startswith(f"warp why-slow: no agent answers on http://{address}")
