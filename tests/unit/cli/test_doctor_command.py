"""The end of `warp doctor`: a thread that hangs in the kernel must not keep the process."""

from __future__ import annotations

import os
import threading

import pytest

from warp.cli.doctor import command


def test_the_process_ends_at_once_when_a_thread_hangs_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    # Servers that other tests have started are kept by threads of theirs.
    others, enumerate_all = threading.enumerate(), threading.enumerate
    monkeypatch.setattr(threading, "enumerate", lambda: [t for t in enumerate_all() if t not in others])
    command._leave_stuck_threads(1)
    assert codes == []
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    command._leave_stuck_threads(1)
    release.set()
    thread.join()
    assert codes == [1]
    idle = threading.Thread(target=release.wait, daemon=True)
    release.clear()
    idle.start()
    command._leave_stuck_threads(0)
    release.set()
    idle.join()
    assert codes == [1]
