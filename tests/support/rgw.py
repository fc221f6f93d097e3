"""Ceph's S3 gateway as a test server: checks signatures, conditional writes have one winner, answers as a cluster does.

One monitor, one storage daemon in memory and the gateway, as processes of the user who runs the tests; they are up in
about a second and end with the process that started them. Debian: ceph-mon ceph-osd radosgw.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.support.process import free_port
from tests.support.s3 import s3_url
from tests.support.sigv4 import Answer, Credentials, ask

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph", "setpriv")
DATA = ("mon", "osd", "rgw")
MEMORY_BYTES_MAX = 2**32

_CONFIG = """\
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
public addr = 127.0.0.1
# No secrets between the daemons: they listen on the loopback address, for one run.
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms client mode = crc
run dir = {directory}
admin socket = {directory}/$name.asok
log file = {directory}/$name.log
mon data = {directory}/mon
osd data = {directory}/osd
rgw data = {directory}/rgw
osd objectstore = memstore
memstore device bytes = {memory}
# One copy of everything, on the only daemon there is, and no time to wait for others.
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
paxos propose interval = 0.02
paxos min wait = 0.01
rgw enable gc threads = false
rgw enable lc threads = false
rgw enable usage log = false
rgw run sync thread = false
"""


def missing_programs() -> list[str]:
    """Which of the programs that it takes are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class RgwServer:
    """A cluster of one in a directory. Use as a context manager."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.credentials = Credentials("warp-test", "warp-test-secret")
        self.stranger = Credentials("stranger", "stranger-secret")
        """Of a user who may not use the buckets of the other."""
        self._directory = directory
        self._config = directory / "ceph.conf"
        self._names = (f"bucket-{number}" for number in itertools.count())
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> RgwServer:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it serves. Raises AssertionError when it doesn't in time."""
        fsid, osd_uuid, mon_port = str(uuid.uuid4()), str(uuid.uuid4()), free_port()
        for name in DATA:
            (self._directory / name).mkdir(parents=True)
        self._config.write_text(
            _CONFIG.format(fsid=fsid, mon_port=mon_port, directory=self._directory, memory=MEMORY_BYTES_MAX)
        )
        monmap = str(self._directory / "monmap")
        self._run(
            "monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", "--fsid", fsid, monmap
        )
        self._run("ceph-mon", *self._as("mon.a"), "--mkfs", "--monmap", monmap)
        self._spawn("ceph-mon", *self._as("mon.a"))
        self._run("ceph", *self._as("client.admin"), "osd", "new", osd_uuid)
        self._run("ceph-osd", *self._as("osd.0"), "--mkfs", "--osd-uuid", osd_uuid)
        self._spawn("ceph-osd", *self._as("osd.0"))
        frontend = f"beast endpoint=127.0.0.1:{self.port} tcp_nodelay=1"
        self._spawn("radosgw", *self._as("client.rgw"), "--no-mon-config", "--rgw-frontends", frontend)
        self._wait_until_serving()
        for user in (self.credentials, self.stranger):
            names = ("--uid", user.access_key, "--display-name", user.access_key)
            self._administer("user", "create", *names, *_key(user))

    def stop(self) -> None:
        """Kills the daemons and removes their data; their logs stay. Returns when they are gone."""
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait(STOP_TIMEOUT_S)
        self._daemons = []
        for name in DATA:
            shutil.rmtree(self._directory / name, ignore_errors=True)

    def pids(self) -> list[int]:
        """Of its daemons."""
        return [daemon.pid for daemon in self._daemons]

    def new_bucket(self) -> str:
        name = next(self._names)
        answer = self.ask("PUT", f"/{name}")
        assert answer.status == 200, answer
        return name

    def url(self, prefix: str = "", **settings: str) -> str:
        """The URL of an object store in a new bucket."""
        return s3_url(self.new_bucket(), prefix, endpoint=self.endpoint, **settings)

    def ask(self, method: str, path: str, **options: object) -> Answer:
        """One signed request; options as `sigv4.ask` takes them."""
        return ask(self.endpoint, self.credentials, method, path, **options)  # type: ignore[arg-type]

    def add_key(self, key: Credentials) -> None:
        """Give the user another key."""
        self._administer(
            "key", "create", "--uid", self.credentials.access_key, "--key-type", "s3", *_key(key)
        )

    def remove_key(self, key: Credentials) -> None:
        """From now on requests that are signed with it are refused."""
        name = ("--uid", self.credentials.access_key, "--key-type", "s3", "--access-key", key.access_key)
        self._administer("key", "rm", *name)

    def _administer(self, *command: str) -> None:
        self._run("radosgw-admin", *self._as("client.rgw"), *command)

    def _as(self, name: str) -> Sequence[str]:
        return ("--conf", str(self._config), "--name", name)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=START_TIMEOUT_S, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout.decode()}\n{done.stderr.decode()}"

    def _spawn(self, program: str, *arguments: str) -> None:
        """Starts a daemon that the kernel kills when this thread ends."""
        with (self._directory / f"{program}.txt").open("wb") as output:
            command = ["setpriv", "--pdeathsig", "KILL", program, *arguments, "--foreground"]
            self._daemons.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=os.sep)
            )

    def _wait_until_serving(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_serving():
            ended = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            assert not ended, f"ended: {ended}; see {self._directory}"
            assert time.monotonic() < deadline, f"the gateway did not start in time; see {self._directory}"
            time.sleep(0.02)

    def _is_serving(self) -> bool:
        try:
            with urllib.request.urlopen(self.endpoint, timeout=5) as answer:
                answer.read()
        except urllib.error.URLError:
            return False
        return True


def _key(credentials: Credentials) -> tuple[str, ...]:
    return ("--access-key", credentials.access_key, "--secret", credentials.secret_key)
