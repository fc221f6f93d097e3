"""What every test shares: determinism, markers, and the rule that nothing is skipped where everything must run.

Environment:
    WARP_TEST_REQUIRE_ALL=1     a skipped test counts as failed, for want of a program for instance (CI sets it)
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import postgres
from tests.support.postgres import PostgresServer
from tests.support.rgw import RgwServer, missing_programs
from tests.support.s3 import NO_OTHER_CREDENTIALS, S3Server
from warp.clock import SystemClock
from warp.metadata.urls import open_database

REQUIRE_ALL = os.environ.get("WARP_TEST_REQUIRE_ALL", "") not in ("", "0")

# The settings of whoever runs the tests are no business of the agents under test.
for _name in [name for name in os.environ if name.startswith(("WARP_", "AWS_"))]:
    del os.environ[_name]
os.environ.update(NO_OTHER_CREDENTIALS)

# Nor is a shell that started the tests in the background, and had them and all their children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run; how long one takes depends on the machine and proves nothing.
settings.register_profile(
    "warp", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("warp")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers; an undeclared one is an error."""
    config.addinivalue_line(
        "markers", "toolchain: needs a program that pip does not install, such as kcat or node"
    )
    config.addinivalue_line("markers", "rgw: needs Ceph's S3 gateway (Debian: ceph-mon ceph-osd radosgw)")
    config.addinivalue_line(
        "markers", "postgres: needs PostgreSQL's server (Debian: postgresql), some PgBouncer too"
    )
    config.addinivalue_line("markers", "load: takes minutes of a whole machine; `make load` runs it alone")
    config.addinivalue_line("markers", "may_skip: may be skipped everywhere, as on another kind of processor")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where every test must run."""
    report = yield
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("may_skip") is not None
    if REQUIRE_ALL and report.skipped and not expected:
        report.outcome = "failed"
        report.longrepr = f"skipped where every test must run: {call.excinfo and call.excinfo.value}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure where every test must run."""
    report = yield
    if REQUIRE_ALL and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"skipped where every test must run: {collector.nodeid}: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for all tests; each makes buckets of its own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def rgw_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RgwServer]:
    """One Ceph for all tests that are marked `rgw`; they are skipped where it is not installed."""
    if missing := missing_programs():
        pytest.skip(
            f"{', '.join(missing)}: not installed (Debian: apt-get install ceph-mon ceph-osd radosgw)"
        )
    with RgwServer(tmp_path_factory.mktemp("rgw")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests that are marked `postgres`; they are skipped where it is not installed.

    Each makes databases of its own. A test that stops, freezes or restarts it leaves it running.
    """
    if (reason := postgres.missing()) is not None:
        pytest.skip(reason)
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a database that has the schema and nothing else."""
    name = "warp_template"
    url = postgres_server.create_database(name)

    async def migrate() -> None:
        database = open_database(url, SystemClock())
        await database.open()
        await database.close()

    asyncio.run(migrate())
    return name


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The URL of a database of the test's own, which has the schema and nothing else."""
    url = postgres_server.create_database(template=postgres_template)
    yield url
    postgres_server.drop_database(url)
