"""PostgreSQL as a test server: a cluster of its own in a temporary directory, on a free loopback port.

PostgreSQL refuses to run as root, so for root it runs as the user `postgres`, and its directory lies where that user
reaches it, which pytest's do not. It ends with the process that started it. Debian: postgresql.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from tests.support.process import free_port

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
DEBIAN_DIRECTORY = Path("/usr/lib/postgresql")
PROGRAMS = ("initdb", "pg_basebackup", "postgres", "psql")
OS_USER = "postgres"
"""Whom the server runs as when root starts it."""
ADMINISTRATOR = "warp"

StopMode = Literal["smart", "fast", "immediate"]
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] %u@%d ",
    "logging_collector": "off",
}

_ACCESS = f"""\
host all {ADMINISTRATOR} 127.0.0.1/32 trust
host replication {ADMINISTRATOR} 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""


def find_binaries() -> Path | None:
    """The directory of PostgreSQL's programs: that of the one on PATH, or else Debian's of the newest version."""
    found = [Path(os.path.realpath(path)).parent for path in [shutil.which("postgres")] if path is not None]
    if DEBIAN_DIRECTORY.is_dir():
        versions = [path for path in DEBIAN_DIRECTORY.iterdir() if path.name.isdecimal()]
        found += [path / "bin" for path in sorted(versions, key=lambda path: -int(path.name))]
    complete = [path for path in found if all((path / name).exists() for name in PROGRAMS)]
    return complete[0] if complete else None


def missing() -> str | None:
    """Why there can be no server here, None when there can."""
    if find_binaries() is None:
        return "PostgreSQL's server programs are not installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            return "setpriv is not installed (Debian: apt-get install util-linux)"
        try:
            pwd.getpwnam(OS_USER)
        except KeyError:
            return f"there is no user {OS_USER} to run PostgreSQL as (Debian: apt-get install postgresql)"
    return None


class PostgresServer:
    """One server. Use as a context manager.

    Port and data stay the same over restarts. Writes are synced as in production, unless `fsync` is off. Keyword
    arguments are settings, as in postgresql.conf.
    """

    def __init__(self, **settings: str) -> None:
        binaries = find_binaries()
        assert binaries is not None, missing()
        self.port = free_port()
        self._binaries = binaries
        self._settings = {**_SETTINGS, **settings, "port": str(self.port)}
        self._directory = Path(os.sep)
        self._primary: PostgresServer | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._names = (f"warp_{number}" for number in itertools.count())
        # The kernel ends the server together with the thread that has started it, so that is one which stays.
        self._starter = ThreadPoolExecutor(1, "postgres")

    def __enter__(self) -> PostgresServer:
        try:
            self._create()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._directory / "data"

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None, "PostgreSQL does not run"
        return self._process.pid

    def pids(self) -> list[int]:
        """Of the postmaster and of every process that it has."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [self.pid, *map(int, children.split())]

    def standby(self, name: str = "standby") -> PostgresServer:
        """A server that is to follow this one by streaming replication, asynchronously. Use as a context manager.

        On entry it becomes a copy of this server, and follows; it serves reads. `name` is what this server knows it by.
        """
        made = PostgresServer(
            primary_conninfo=f"host=127.0.0.1 port={self.port} user={ADMINISTRATOR} application_name={name}"
        )
        made._primary = self
        return made

    def wait_for_standby(self, name: str = "standby") -> None:
        """From now on let every commit wait until that standby has it too. Returns when it does."""
        self.execute(f"alter system set synchronous_standby_names = '{name}'; select pg_reload_conf()")
        self._await(
            f"select 1 from pg_stat_replication where application_name = '{name}' and sync_state = 'sync'"
        )

    def hold_back_standbys(self) -> None:
        """Send standbys nothing any more, not even in the moment in which this server dies."""
        pids = [int(pid) for pid in self.execute("select pid from pg_stat_replication")]
        assert pids, "no standby follows"
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        while not all(_is_stopped(pid) for pid in pids):
            time.sleep(0.001)

    def promote(self) -> None:
        """Make a standby a primary. Returns when it takes writes."""
        assert self.execute("select pg_promote(true, 60)") == ["t"], self.log()[-4000:]
        self._primary = None

    def start(self) -> None:
        """Returns when it serves. Raises AssertionError with its log when it doesn't in time."""
        assert self._process is None, "PostgreSQL runs already"
        self._process = self._starter.submit(self._spawn).result()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._kill()
                raise AssertionError("PostgreSQL did not start:\n" + self.log()[-4000:])
            time.sleep(0.005)

    def stop(self, mode: StopMode = "fast") -> None:
        """Returns when it has ended: `fast` cuts all connections, `immediate` is a crash, `smart` waits for clients."""
        assert self._process is not None, "PostgreSQL does not run"
        self._process.send_signal(_SIGNALS[mode])
        self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def crash(self) -> None:
        """kill -9 of all its processes at one moment, as when its machine dies. It may be started again."""
        self.pause()
        for pid in self.pids():
            _signal(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop it, and start it again on the same port. Returns when it serves."""
        self.stop(mode)
        self.start()

    def pause(self) -> None:
        """Freeze all its processes: connections stay, and nothing answers. The kernel still accepts new ones."""
        stopped: set[int] = set()
        while new := [pid for pid in self.pids() if pid not in stopped]:
            for pid in new:
                _signal(pid, signal.SIGSTOP)
            stopped.update(new)
        while not all(_is_stopped(pid) for pid in stopped):
            time.sleep(0.001)

    def resume(self) -> None:
        """Let them go on."""
        for pid in reversed(self.pids()):
            _signal(pid, signal.SIGCONT)

    def url(self, database: str = "postgres", user: str = ADMINISTRATOR, password: str | None = None) -> str:
        """Of a database. The administrator needs no password."""
        secret = "" if password is None else f":{password}"
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str | None = None, *, template: str | None = None) -> str:
        """The URL of a new database: an empty one, or a copy of another that nobody is connected to."""
        name = name or next(self._names)
        source = "" if template is None else f' template "{template}"'
        self.execute(f'create database "{name}"{source}')
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, and cut whoever is still connected to it."""
        self.execute(f'drop database "{urlsplit(url).path[1:]}" with (force)')

    def create_user(self, name: str, password: str) -> None:
        """Add a user who logs in with a password and owns nothing."""
        self.execute(f"""create user "{name}" password '{password}'""")

    def execute(self, sql: str, database: str = "postgres") -> list[str]:
        """Run statements, each in a transaction of its own; the rows of the answers, with `|` between columns.

        Raises AssertionError with the message when one fails.
        """
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        done = self._run("psql", *options, "--file=-", self.url(database), text=sql)
        return [line for line in done.splitlines() if line]

    def terminate_connections(self, database: str) -> int:
        """Cut all connections to a database, as an administrator would. How many there were."""
        [count] = self.execute(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            f" where datname = '{database}' and pid <> pg_backend_pid()"
        )
        return int(count)

    def log(self) -> str:
        """All that the server has written to its log."""
        path = self._directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _create(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="warp-postgres-"))
        if os.geteuid() == 0:
            user = pwd.getpwnam(OS_USER)
            os.chown(self._directory, user.pw_uid, user.pw_gid)
        if self._primary is not None:
            source = f"--dbname={self._primary.url()}"
            self._run("pg_basebackup", source, f"--pgdata={self.data}", "--checkpoint=fast", "--no-sync")
            (self.data / "standby.signal").touch()
        else:
            self._run(
                "initdb", f"--pgdata={self.data}", f"--username={ADMINISTRATOR}", "--auth=trust",
                "--encoding=UTF8", "--no-locale", "--no-sync",
            )  # fmt: skip
        lines = [f"{name} = '{value}'" for name, value in self._settings.items()]
        (self.data / "postgresql.auto.conf").write_text("\n".join(lines) + "\n")
        (self.data / "pg_hba.conf").write_text(_ACCESS)

    def _remove(self) -> None:
        """End it, whatever state it is in, and delete its data."""
        self._kill()
        self._starter.shutdown()
        if self._directory != Path(os.sep):
            shutil.rmtree(self._directory)
            self._directory = Path(os.sep)

    def _kill(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self.resume()
            self._process.send_signal(signal.SIGQUIT)
        self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [str(self._binaries / "postgres"), "-D", str(self.data)]
        with (self._directory / "log").open("ab") as log:
            # SIGINT is its fast shutdown.
            return subprocess.Popen(
                [*as_server(), "--pdeathsig", "INT", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=os.sep, start_new_session=True,
            )  # fmt: skip

    def _is_ready(self) -> bool:
        """Does the file that the postmaster keeps say that it takes connections?"""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # A standby that serves reads says so in a word of its own.
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() in ("ready", "standby")

    def _await(self, question: str) -> None:
        """Ask until there is an answer."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.execute(question):
            assert time.monotonic() < deadline, question
            time.sleep(0.02)

    def _run(self, program: str, *arguments: str, text: str = "") -> str:
        done = subprocess.run(
            [*as_server(), str(self._binaries / program), *arguments],
            input=text, capture_output=True, text=True, cwd=os.sep, timeout=START_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{program} {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout


def as_server() -> list[str]:
    """The start of a command line that runs a program as the user who may run the server."""
    if os.geteuid() != 0:
        return ["setpriv"]
    return ["setpriv", f"--reuid={OS_USER}", f"--regid={OS_USER}", "--init-groups"]


def _is_stopped(pid: int) -> bool:
    """Is it stopped (proc(5): T), or has it ended?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TtZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _signal(pid: int, number: signal.Signals) -> None:
    """Send a signal, to a process that may have ended by itself meanwhile."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
