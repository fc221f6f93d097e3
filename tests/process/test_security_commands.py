"""Commands against an agent that lets in only who has a name: TLS, SCRAM and ACLs on Kafka's side and over HTTP."""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import Running, Spawn, run_warp
from tests.support.certificates import Authority

PASSWORD = "correct horse: ä"


class Secured:
    """An agent with a listener for this machine, without authentication, and one with all of it."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        issued = self.authority.issue("agent")
        self.client = self.authority.issue("operator")
        self.password = directory / "password"
        self.password.write_text(f"{PASSWORD}\n")
        self.wrong = directory / "wrong"
        self.wrong.write_text("wrong horse\n")
        spawn = Spawn(directory / "data")
        self.settings = (
            "--sasl-mechanisms", "PLAIN,SCRAM-SHA-256",
            "--tls-certificate", str(issued.certificate), "--tls-key", str(issued.key),
            "--tls-client-ca", str(self.authority.ca),
            "--http-tls", "true", "--http-authentication", "required",
            "--authorization", "enforce",
            "--super-users", "User:ANONYMOUS;User:admin;User:CN=operator",
        )  # fmt: skip
        self.data_dir = spawn.data_dir
        listen = ("--listen", "PLAINTEXT://127.0.0.1:0,SASL_SSL://127.0.0.1:0")
        self.running: Running = spawn.python("-m", "warp", "agent", *spawn.defaults(*listen, *self.settings))
        line = self.running.serving_line()
        self.open, self.closed = re.findall(r"127\.0\.0\.1:\d+", line)[:2]
        self.config = directory / "client.properties"
        self.config.write_text(
            f"bootstrap.servers={self.closed}\nsecurity.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\n"
            f"sasl.username=admin\nssl.ca.location={self.authority.ca}\n"
        )

    def command(self, *words: str, password: Path | None = None) -> tuple[int, str, str]:
        """As a client of the closed listener."""
        secret = ("--client-password-file", str(password)) if password else ()
        return run_warp(*words, "--client-config", str(self.config), *secret)

    def http(
        self, *words: str, user: str | None = "admin", password: Path | None = None
    ) -> tuple[int, str, str]:
        who = (
            ()
            if user is None
            else ("--http-user", user, "--http-password-file", str(password or self.password))
        )
        return run_warp(*words, "--http", self.running.http, "--http-ca", str(self.authority.ca), *who)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("secured"))
    for user in ("admin", "nobody"):
        words = ("user", "create", user, "--password-file", str(made.password), "-b", made.open)
        code, _, error = run_warp(*words)
        assert (code, error) == (0, "")
    yield made
    assert made.running.stop() == 0
    made.running.close()
    shown = "\n".join(made.running.errors)
    assert PASSWORD not in shown
    assert "wrong horse" not in shown


def test_a_client_config_and_a_password_file_open_the_listener(secured: Secured) -> None:
    assert secured.command("topic", "create", "secrets", password=secured.password)[::2] == (0, "")
    code, out, error = secured.command("topic", "list", "--json", password=secured.password)
    assert (code, error) == (0, "")
    assert {"topic": "secrets", "partitions": 1} in json.loads(out)
    done = run_warp(
        "produce", "secrets", "--client-password-file", str(secured.password),
        stdin=b"x\n", env={"WARP_CLIENT_CONFIG": str(secured.config)},
    )  # fmt: skip
    assert done == (0, "", "")


def test_a_wrong_password_is_one_line(secured: Secured) -> None:
    for words in (("topic", "list"), ("consume", "secrets", "--to", "end")):
        code, out, error = secured.command(*words, "--timeout", "20", password=secured.wrong)
        assert (code, out, error.count("\n")) == (1, "", 1)
        assert f"{secured.closed} did not take this client's credentials: " in error
        assert "wrong horse" not in error


def test_a_certificate_that_is_not_trusted_is_one_line(secured: Secured, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    words = ("topic", "list", "-X", f"ssl.ca.location={other.ca}", "--timeout", "20")
    code, _, error = secured.command(*words, password=secured.password)
    assert (code, error.count("\n")) == (1, 1)
    assert f"no TLS with {secured.closed}: " in error


def test_what_acls_refuse_is_one_line(secured: Secured) -> None:
    words = ("topic", "create", "forbidden", "-X", "sasl.username=nobody")
    code, _, error = secured.command(*words, password=secured.password)
    assert (code, error.count("\n")) == (1, 1)
    assert "AUTHORIZATION_FAILED" in error


def test_a_secret_in_the_arguments_is_refused(secured: Secured) -> None:
    code, _, error = secured.command("topic", "list", "-X", f"sasl.password={PASSWORD}")
    assert (code, error.count("\n")) == (2, 1)
    assert "--client-password-file" in error
    assert PASSWORD not in error


def test_a_missing_password_without_a_terminal_is_one_line(secured: Secured) -> None:
    code, _, error = secured.command("topic", "list")
    assert (code, error.count("\n")) == (2, 1)
    assert "--client-password-file" in error


def test_commands_over_http_say_who_asks(secured: Secured) -> None:
    code, out, error = secured.http("cluster", "status", "--json")
    assert (code, error) == (0, "")
    assert json.loads(out)["own"]["session"] == "live"
    assert secured.http("why-slow")[0] == 0
    assert secured.http("cost", "--json")[0] == 0
    environment = {
        "WARP_HTTP_USER": "admin", "WARP_HTTP_PASSWORD_FILE": str(secured.password),
        "WARP_HTTP_CA": str(secured.authority.ca),
    }  # fmt: skip
    assert run_warp("cluster", "status", "--http", secured.running.http, env=environment)[0] == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"user": None}, "wants to know who asks: name a user with --http-user"),
        ({"user": "nobody"}, "User:nobody may not DESCRIBE the cluster"),
        ({"user": "stranger"}, "does not take the name or the password of stranger"),
    ],
)
def test_who_may_not_ask_over_http_is_told_so(
    secured: Secured, options: dict[str, str | None], told: str
) -> None:
    code, out, error = secured.http("cluster", "status", **options)  # type: ignore[arg-type]
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert told in error


def test_a_wrong_password_or_authority_over_http_is_one_line(secured: Secured, tmp_path: Path) -> None:
    code, _, error = secured.http("cluster", "status", password=secured.wrong)
    assert (code, error.count("\n")) == (1, 1)
    assert "does not take the name or the password of admin" in error
    other = Authority(tmp_path, "other")
    code, _, error = run_warp("cluster", "status", "--http", secured.running.http, "--http-ca", str(other.ca))
    assert (code, error.count("\n")) == (1, 1)
    assert "name who signed it with --http-ca" in error
    plain = secured.running.http.replace("https", "http")
    code, _, error = run_warp("cluster", "status", "--http", plain)
    assert (code, error.count("\n")) == (1, 1)
    assert "say https://" in error


def test_a_password_that_was_replaced_opens_nothing_more(secured: Secured, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.write_text("battery staple\n")
    assert secured.http("why-slow")[0] == 0
    words = ("user", "create", "admin", "--replace", "-b", secured.open, "--password-file")
    assert run_warp(*words, str(new))[0] == 0
    try:
        assert secured.http("why-slow")[0] == 1
        assert secured.http("why-slow", password=new)[0] == 0
    finally:
        assert run_warp(*words, str(secured.password))[0] == 0


def test_health_checks_stay_open_and_a_client_certificate_does(secured: Secured) -> None:
    def get(path: str, context: ssl.SSLContext) -> int:
        try:
            with urllib.request.urlopen(secured.running.http + path, context=context, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    nobody, operator = (
        secured.authority.client_context(),
        secured.authority.client_context(secured.client),
    )
    assert [get(path, nobody) for path in ("/v1/status", "/v1/ready", "/metrics")] == [200, 200, 401]
    assert get("/metrics", operator) == 200


def test_a_refused_request_over_http_is_in_the_audit_log(secured: Secured) -> None:
    secured.http("cluster", "status", user="nobody")
    line = secured.running.wait_for_error("HTTP /v1/cluster")
    found = json.loads(line)
    assert (found["logger"], found["principal"], found["operation"]) == (
        "warp.audit",
        "User:nobody",
        "DESCRIBE",
    )


def test_the_doctor_finds_the_agent_behind_tls_and_sasl(secured: Secured) -> None:
    code, out, error = run_warp(
        "doctor", "--json", "--samples", "1", "--data-dir", str(secured.data_dir), *secured.settings,
        "--listen", f"PLAINTEXT://{secured.open},SASL_SSL://{secured.closed}",
        "--http", secured.running.http.removeprefix("https://"),
    )  # fmt: skip
    found = {(each["check"], each["subject"]): each for each in json.loads(out)["findings"]}
    assert (code, error) == (0, ""), [each for each in found.values() if each["severity"] == "problem"]
    assert "wants clients to authenticate" in found["clients.reach", secured.closed]["text"]
    assert found["ports.listen", secured.closed]["severity"] == "ok"
    assert "the agent is ready" in found["ports.http", secured.running.http.removeprefix("https://")]["text"]
    assert found["security.certificate-name", "127.0.0.1"]["severity"] == "ok"
    assert found["security.certificate", secured.settings[3]]["severity"] == "warning"
    code, out, error = run_warp("doctor", "--json", "--samples", "1", "--bootstrap", secured.closed)
    assert (code, error) == (0, "")
    assert "wants clients to authenticate" in out
