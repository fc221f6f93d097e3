"""An agent for the tests of programs that use Kafka: `LocalAgent`, and the pytest fixture `warp_agent`.

The fixture is there as soon as the package is installed:

    def test_my_program(warp_agent):
        my_program.run(bootstrap_servers=warp_agent.bootstrap)

It is one agent for the whole test session; use topics of your own in each test. A test that stops, kills or configures
its agent makes a `LocalAgent` itself.
"""

from __future__ import annotations

from warp.cli.local_agent import LocalAgent

__all__ = ["LocalAgent"]
