"""`warp doctor` as users run it: before an agent, beside one, where something is wrong; and that it leaves nothing."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.process.conftest import ROOT, TIMEOUT_S, Spawn, environment, run_warp
from tests.support.process import AgentProcess, free_port
from tests.support.s3 import S3Server, environment_of, s3_url
from warp.cli.doctor.finding import CHECKS
from warp.cli.main import main

ANY = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")


def doctor(
    *words: str, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of a run that prints no line of errors."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "warp", "doctor", "--json", "--samples", "3", *words],
        capture_output=True, timeout=TIMEOUT_S, env=environment(**(env or {})), cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.stderr == b"", done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["healthy"] == (done.returncode == 0)
    return done.returncode, found


def severity(found: dict[str, Any], check: str) -> str:
    """How bad a check came out; the worst of several findings."""
    order = ["ok", "note", "warning", "problem"]
    severities = [str(each["severity"]) for each in found["findings"] if each["check"] == check]
    return max(severities, key=order.index)


def finding(found: dict[str, Any], check: str) -> dict[str, Any]:
    """The one finding of a check."""
    (each,) = (each for each in found["findings"] if each["check"] == check)
    return dict(each)


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_before_the_first_start_it_measures_and_makes_nothing(tmp_path: Path) -> None:
    code, found = doctor("--data-dir", str(tmp_path / "data"), *ANY)
    assert code == 0, found
    assert tree(tmp_path) == []
    checks = {each["check"] for each in found["findings"]}
    # Without an agent nothing answers, and port 0 is asked for; nor are there others on a database of its own.
    of_clusters = {check for check in CHECKS if check.startswith("cluster.")} | {
        "clock.metadata", "metadata.open", "metadata.durability", "metadata.encryption", "metadata.connections",
        "metadata.round-trip", "metadata.commit", "metadata.notices",
    }  # fmt: skip
    of_certificates = {
        "security.certificate", "security.key-file", "security.certificate-name", "security.super-users",
    }  # fmt: skip
    assert set(CHECKS) - checks - of_clusters - of_certificates == {
        "clients.reach", "clients.cluster", "clients.brokers", "clients.round-trip", "jobs.backlog",
        "jobs.quarantine",
    }  # fmt: skip
    assert not checks & of_clusters
    for check in ("put-small", "put-large", "get-small", "get-large"):
        assert finding(found, f"object-store.{check}")["measured"]["samples"] == 3
    assert found["looked_at"]["object-store"] == f"file://{tmp_path}/data/objects"


def test_beside_a_running_agent_everything_is_fine_and_nothing_changes(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data") as agent:
        options = (
            "--data-dir", str(agent.data_dir), "--listen", agent.bootstrap,
            "--http", f"127.0.0.1:{agent.http_port}",
        )  # fmt: skip
        assert run_warp("produce", "t", "-b", agent.bootstrap, stdin=b"x\n")[0] == 0
        before = tree(tmp_path)
        code, found = doctor(*options)
        assert code == 0, found
        assert tree(tmp_path) == before
        assert finding(found, "metadata.directory")["measured"] == {"agent_pid": agent.pid}
        assert "was not touched" in finding(found, "metadata.directory")["text"]
        assert finding(found, "metadata.database")["measured"]["is_wal"] is True
        cluster = finding(found, "clients.cluster")["measured"]["cluster_id"]
        for check in ("ports.listen", "ports.http"):
            assert severity(found, check) == "ok"
            assert cluster in finding(found, check)["text"]
        assert finding(found, "clients.brokers")["measured"]["brokers"] == [agent.bootstrap]
        assert run_warp("consume", "t", "--to", "end", "-b", agent.bootstrap)[1] == "x\n"

        code, found = doctor(
            "--data-dir", str(agent.data_dir), "--listen", f"127.0.0.1:{free_port()}", *options[4:]
        )
        assert (code, severity(found, "ports.listen")) == (0, "warning")

        code, found = doctor("--data-dir", str(tmp_path / "other"), *options[2:])
        assert code == 1
        assert severity(found, "ports.listen") == severity(found, "ports.http") == "problem"
        assert cluster in finding(found, "ports.listen")["text"]
        assert agent.stop() == 0


def test_a_cluster_is_looked_at_as_clients_see_it(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data") as agent:
        code, found = doctor("--bootstrap", agent.bootstrap)
        assert code == 0, found
        assert finding(found, "clients.round-trip")["measured"]["samples"] == 3
        assert {each["check"].partition(".")[0] for each in found["findings"]} == {"clients", "limits"}
        agent.kill()
    code, found = doctor("--bootstrap", agent.bootstrap)
    assert (code, severity(found, "clients.reach")) == (1, "problem")
    assert "Connection refused" in finding(found, "clients.reach")["text"]


def test_an_advertised_address_that_nobody_answers_is_a_problem(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    with AgentProcess(tmp_path / "data", "--advertise", nobody) as agent:
        common = ("--data-dir", str(agent.data_dir), "--http", "off")
        code, found = doctor(*common, "--listen", agent.bootstrap, "--advertise", nobody)
        assert code == 1
        assert (severity(found, "ports.listen"), severity(found, "clients.reach")) == ("ok", "problem")
        assert agent.bootstrap in finding(found, "clients.reach")["remedy"]
        code, found = doctor("--bootstrap", agent.bootstrap)
        assert (code, severity(found, "clients.brokers")) == (1, "problem")
        assert nobody in finding(found, "clients.brokers")["text"]


def test_an_advertised_address_of_another_cluster_is_a_problem(tmp_path: Path) -> None:
    with (
        AgentProcess(tmp_path / "a") as other,
        AgentProcess(tmp_path / "b", "--advertise", other.bootstrap) as agent,
    ):
        code, found = doctor(
            "--data-dir", str(agent.data_dir), "--http", "off",
            "--listen", agent.bootstrap, "--advertise", other.bootstrap,
        )  # fmt: skip
        assert (code, severity(found, "clients.cluster")) == (1, "problem")


class Greeting(socketserver.BaseRequestHandler):
    """A server of something else altogether."""

    def handle(self) -> None:
        self.request.sendall(b"220 mail.example ESMTP\r\n")


def test_ports_that_other_programs_have_are_problems(tmp_path: Path) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Greeting) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        taken = f"127.0.0.1:{server.server_address[1]}"
        place = ("--data-dir", str(tmp_path))
        try:
            code, as_kafka = doctor(*place, "--listen", taken, "--http", "off")
            assert code == 1
            code, as_http = doctor(*place, "--listen", "127.0.0.1:0", "--http", taken)
            assert code == 1
        finally:
            server.shutdown()
            thread.join()
    assert severity(as_kafka, "ports.listen") == severity(as_http, "ports.http") == "problem"
    assert "no Kafka broker" in finding(as_kafka, "ports.listen")["text"]
    assert "does not speak HTTP" in finding(as_http, "ports.http")["text"]
    # Said once, not again of clients, who are told the same address.
    assert not any(each["check"] == "clients.reach" for each in as_kafka["findings"])


def test_a_loopback_address_told_to_everybody_is_a_warning(tmp_path: Path) -> None:
    code, found = doctor(
        "--data-dir", str(tmp_path), "--http", "off",
        "--listen", f"0.0.0.0:{free_port()}", "--advertise", "localhost",
    )  # fmt: skip
    assert (code, severity(found, "clients.advertised")) == (0, "warning")
    assert f"--advertise {socket.gethostname()}:" in finding(found, "clients.advertised")["remedy"]


def without_the_powers_of_root() -> tuple[str, ...]:
    """A program that runs another one which rights of files hold back, whoever runs the tests."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root without setpriv (util-linux): no file can be kept from it")
    powers = "-dac_override,-dac_read_search"
    return ("setpriv", "--bounding-set", powers, "--inh-caps", powers)


def test_a_directory_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o555)
    try:
        code, found = doctor("--data-dir", str(data), *ANY, prefix=without_the_powers_of_root())
    finally:
        data.chmod(0o755)
    assert code == 1
    assert finding(found, "metadata.directory")["text"] == f"{data} can't be written: Permission denied"
    assert "can't be written" in finding(found, "object-store.open")["text"]


def test_memory_needs_no_disk() -> None:
    code, found = doctor("--object-store", "mem://", *ANY)
    assert code == 0
    assert severity(found, "object-store.open") == severity(found, "metadata.directory") == "note"
    assert not any(each["check"].endswith(("space", "file-system")) for each in found["findings"])


def keys(s3: S3Server, bucket: str) -> bytes:
    answer = s3.ask("GET", f"/{bucket}", query={"list-type": "2"})
    assert answer.status == 200
    return bytes(answer.body)


def test_a_bucket_is_measured_and_left_as_it_was(s3_server: S3Server, tmp_path: Path) -> None:
    bucket = s3_server.new_bucket()
    url = s3_url(bucket, "cluster", endpoint=s3_server.endpoint)
    code, found = doctor(
        "--object-store", url, "--data-dir", str(tmp_path), *ANY, env=environment_of(s3_server.credentials)
    )
    assert code == 0, found
    assert severity(found, "clock.object-store") == "ok"
    assert finding(found, "object-store.abilities")["measured"] == {
        "conditional_create": True,
        "checks_content": True,
    }
    assert finding(found, "object-store.put-large")["measured"]["samples"] == 3
    assert b"<Key>" not in keys(s3_server, bucket)
    written = [each.path for each in s3_server.requests(bucket=bucket) if each.method == "PUT"]
    assert all(path.startswith(f"/{bucket}/cluster/probe/") for path in written[1:]), written
    assert tree(tmp_path) == []


def test_a_bucket_that_is_not_there_is_a_problem_with_its_remedy(s3_server: S3Server, tmp_path: Path) -> None:
    url = s3_url("no-such-bucket", endpoint=s3_server.endpoint)
    code, found = doctor(
        "--object-store", url, "--data-dir", str(tmp_path), *ANY, env=environment_of(s3_server.credentials)
    )
    assert code == 1
    assert "no bucket 'no-such-bucket'" in finding(found, "object-store.open")["text"]
    assert "create it" in finding(found, "object-store.open")["remedy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_visit_to_a_bucket_leaves_nothing(
    s3_server: S3Server, tmp_path: Path, number: int
) -> None:
    bucket = s3_server.new_bucket()
    process = subprocess.Popen(
        [sys.executable, "-m", "warp", "doctor", "--samples", "10000", "--data-dir", str(tmp_path), *ANY,
         "--object-store", s3_url(bucket, endpoint=s3_server.endpoint)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        env=environment(**environment_of(s3_server.credentials)),
    )  # fmt: skip
    deadline = time.monotonic() + TIMEOUT_S
    while not any("/doctor-" in each.path for each in s3_server.requests(bucket=bucket)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    output, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, output, errors) == (1, b"", b"warp doctor: interrupted\n")
    assert b"<Key>" not in keys(s3_server, bucket)


def test_an_interrupted_visit_to_a_directory_leaves_nothing(spawn: Spawn, tmp_path: Path) -> None:
    objects = tmp_path / "objects"
    objects.mkdir()
    running = spawn.python(
        "-m", "warp", "doctor", "--samples", "10000", "--data-dir", str(tmp_path), *ANY,
    )  # fmt: skip
    deadline = time.monotonic() + TIMEOUT_S
    while not tree(objects):
        assert running.process.poll() is None, running.errors
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send(signal.SIGINT)
    assert running.wait() == 1
    assert running.errors == ["warp doctor: interrupted"]
    assert tree(tmp_path) == ["objects"]


def test_on_a_terminal_it_shows_progress_and_colours(tmp_path: Path) -> None:
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "warp", "doctor", "--samples", "2", "--data-dir", str(tmp_path), *ANY],
        stdin=child, stdout=child, stderr=child, cwd=ROOT, env={**environment(TERM="xterm"), "NO_COLOR": ""},
    )  # fmt: skip
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:
            # How Linux says that nobody holds the other end any more.
            break
        if not part:
            break
        shown += part
    os.close(parent)
    assert process.wait(TIMEOUT_S) == 0
    assert b"PUT large 2/2 ..." in shown
    assert b"\x1b[32mok" in shown


def test_elsewhere_it_prints_plain_lines(tmp_path: Path) -> None:
    code, output, errors = run_warp("doctor", "--samples", "2", "--data-dir", str(tmp_path), *ANY)
    assert (code, errors, "\x1b" in output) == (0, "", False)
    assert output.startswith("Warp ")
    assert output.splitlines()[-1].startswith("no problems")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--fush-bytes", "1MiB"], "unknown option --fush-bytes; did you mean --flush-bytes?"),
        (["--samples", "0"], "argument --samples: '0' is not a whole number above 0"),
        (["--samples", "10001"], "--samples 10001 is above the maximum of 10000"),
        (["--bootstrap", "nowhere"], "--bootstrap: 'nowhere' is not HOST:PORT"),
        (
            ["--bootstrap", "a:1", "--zone", "z"],
            "--bootstrap looks at a running cluster; --zone has no part in that",
        ),
        (
            ["--bootstrap", "a:1", "--config", "x"],
            "--bootstrap looks at a running cluster; --config has no part in that",
        ),
        (["--object-store", "ftp://x"], "object store 'ftp://x': unknown kind 'ftp'"),
        (
            ["--object-store", "s3://bucket?regoin=x"],
            "object store 's3://bucket': unknown parameter 'regoin'",
        ),
        (["--metadata", "ftp://x"], "metadata: unknown kind 'ftp'"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [] if "--bootstrap" in words else ["--data-dir", str(tmp_path)]
    assert main(["doctor", *place, *words]) == 2
    assert capsys.readouterr().err.startswith(f"warp doctor: {line}")
    assert tree(tmp_path) == []
