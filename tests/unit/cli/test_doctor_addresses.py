"""What the doctor says of ports and of what clients are told, from made-up answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.cli.doctor_facts import (
    BROKER,
    CLIENTS,
    CLUSTER,
    HELD,
    LISTEN,
    NOBODY,
    TOLD,
    UNKNOWN,
    bad,
    severities,
)
from warp.cli.doctor.examine import is_wrong, most_telling, told_addresses
from warp.cli.doctor.facts import (
    AgentStatus,
    BindState,
    BrokerAddress,
    BrokerFacts,
    ClientFacts,
    Holder,
    HolderState,
    PortFacts,
)
from warp.cli.doctor.finding import Severity
from warp.cli.doctor.judge.clients import judge_clients, judge_told
from warp.cli.doctor.judge.ports import judge_http, judge_listener
from warp.config import config_of
from warp.config_values import Address

SILENT = BrokerFacts(TOLD, ("192.0.2.1",), refusal="Connection refused")
UNKNOWN_NAME = BrokerFacts(TOLD, refusal="broker.example has no address: Name or service not known")
STATUS = AgentStatus(version="0.1.0", cluster_id=CLUSTER, broker_id=1)
STATES = [
    (BindState.FREE, Severity.OK, "free"),
    (BindState.PRIVILEGED, Severity.PROBLEM, "may not use the port"),
    (BindState.NOT_HERE, Severity.PROBLEM, "no interface"),
    (BindState.UNKNOWN_HOST, Severity.PROBLEM, "has no address"),
    (BindState.REFUSED, Severity.PROBLEM, "can't be listened on"),
]


@pytest.mark.parametrize(("state", "severity", "words"), STATES)
def test_an_address_that_nobody_has_is_judged_by_whether_it_can_be_bound(
    state: BindState, severity: Severity, words: str
) -> None:
    facts = PortFacts(LISTEN, state, "why")
    for found, option in (
        (judge_listener(facts, NOBODY), "--listen"),
        (judge_http(facts, NOBODY, None), "--http"),
    ):
        assert (found.severity, words in found.text) == (severity, True)
        assert severity is Severity.OK or option in found.remedy


def test_a_free_port_is_odd_when_the_agent_runs() -> None:
    facts = PortFacts(LISTEN, BindState.FREE)
    for found in (judge_listener(facts, HELD), judge_http(facts, HELD, None)):
        assert (found.severity, "listens elsewhere" in found.text) == (Severity.WARNING, True)
    any_port = PortFacts(Address("127.0.0.1", 0), BindState.FREE)
    assert judge_listener(any_port, HELD).severity is Severity.OK


def test_port_0_takes_any() -> None:
    assert "any free port" in judge_listener(PortFacts(Address("127.0.0.1", 0), BindState.FREE), NOBODY).text


def test_a_listener_that_the_agent_has_is_fine_and_another_brokers_is_a_problem() -> None:
    taken = PortFacts(LISTEN, BindState.TAKEN, broker=BROKER)
    assert judge_listener(taken, HELD).severity is Severity.OK
    assert judge_listener(taken, UNKNOWN).severity is Severity.NOTE
    found = judge_listener(taken, NOBODY)
    assert (found.severity, CLUSTER in found.text) == (Severity.PROBLEM, True)


def test_a_listener_that_another_program_has_is_a_problem() -> None:
    facts = PortFacts(LISTEN, BindState.TAKEN, broker=replace(SILENT, refusal="speaks HTTP, not Kafka"))
    found = judge_listener(facts, HELD)
    assert (found.severity, "speaks HTTP" in found.text) == (Severity.PROBLEM, True)
    assert judge_listener(replace(facts, broker=None), HELD).severity is Severity.PROBLEM


def test_an_agent_behind_http_is_told_from_another_one() -> None:
    taken = PortFacts(LISTEN, BindState.TAKEN, status=STATUS)
    assert judge_http(taken, HELD, CLUSTER).severity is Severity.OK
    assert judge_http(taken, HELD, None).severity is Severity.OK
    assert judge_http(taken, UNKNOWN, CLUSTER).severity is Severity.OK
    assert judge_http(taken, NOBODY, None).severity is Severity.PROBLEM
    assert judge_http(taken, HELD, "another").severity is Severity.PROBLEM
    assert "Warp 0.1.0, cluster" in judge_http(taken, HELD, CLUSTER).text


def test_an_agent_that_is_not_ready_is_a_warning_with_its_reasons() -> None:
    status = replace(STATUS, reasons_not_ready=("object store: no answer within 5 s",))
    found = judge_http(PortFacts(LISTEN, BindState.TAKEN, status=status), HELD, CLUSTER)
    assert (found.severity, "no answer within 5 s" in found.text) == (Severity.WARNING, True)


def test_http_that_is_no_agents_is_a_problem() -> None:
    facts = PortFacts(LISTEN, BindState.TAKEN, status=AgentStatus(refusal="does not speak HTTP"))
    found = judge_http(facts, HELD, CLUSTER)
    assert (found.severity, "does not speak HTTP" in found.text) == (Severity.PROBLEM, True)
    assert judge_http(replace(facts, status=None), HELD, CLUSTER).severity is Severity.PROBLEM


@pytest.mark.parametrize(
    ("told", "listen", "severity"),
    [
        ("broker.example", "0.0.0.0", Severity.OK),
        ("192.0.2.1", "192.0.2.1", Severity.OK),
        ("localhost", "127.0.0.1", Severity.NOTE),
        ("127.0.0.1", "0.0.0.0", Severity.WARNING),
        ("localhost", "192.0.2.1", Severity.WARNING),
        ("::1", "::", Severity.WARNING),
    ],
)
def test_clients_that_are_told_to_connect_to_themselves(told: str, listen: str, severity: Severity) -> None:
    found = judge_told(Address(told, 19092), Address(listen, 9092), "host.example")
    assert found.severity is severity
    if severity is Severity.WARNING:
        assert "--advertise host.example:19092" in found.remedy


def test_a_cluster_that_answers_as_it_should_has_nothing_wrong() -> None:
    assert severities(judge_clients(CLIENTS)) == {
        "clients.reach": Severity.OK,
        "clients.cluster": Severity.OK,
        "clients.brokers": Severity.OK,
    }


def test_a_running_cluster_is_timed() -> None:
    outside = replace(CLIENTS, listen=None, expected_cluster_id=None)
    (timed,) = (found for found in judge_clients(outside) if found.check == "clients.round-trip")
    assert timed.measured["p50_ms"] == 2
    assert bad(judge_clients(outside)) == {}


@pytest.mark.parametrize(
    ("facts", "severity", "words"),
    [
        (replace(CLIENTS, answer=SILENT), Severity.PROBLEM, "Connection refused"),
        (replace(CLIENTS, answer=SILENT, is_serving=False), Severity.NOTE, "no agent serves here yet"),
        (
            replace(CLIENTS, answer=replace(SILENT, is_open=True, refusal="speaks TLS"), is_serving=False),
            Severity.PROBLEM,
            "speaks TLS",
        ),
        (replace(CLIENTS, answer=UNKNOWN_NAME, is_serving=False), Severity.PROBLEM, "Name or service"),
        (replace(CLIENTS, answer=SILENT, listen=None), Severity.PROBLEM, "no Kafka broker"),
    ],
)
def test_an_address_that_does_not_lead_to_a_broker(
    facts: ClientFacts, severity: Severity, words: str
) -> None:
    (found,) = judge_clients(facts)
    assert (found.check, found.severity, words in found.text) == ("clients.reach", severity, True), found


def test_an_address_of_another_cluster_is_a_problem() -> None:
    other = replace(BROKER, cluster_id="other")
    facts = replace(CLIENTS, answer=other, others=(other,))
    assert bad(judge_clients(facts)) == {"clients.cluster": Severity.PROBLEM}


def test_a_broker_that_answers_though_nobody_listens_here_is_a_warning() -> None:
    facts = replace(CLIENTS, is_serving=False, expected_cluster_id=None)
    assert bad(judge_clients(facts)) == {"clients.cluster": Severity.WARNING}


def test_a_broker_that_cannot_be_reached_is_named() -> None:
    elsewhere = Address("inside.example", 9092)
    answer = replace(BROKER, brokers=(*BROKER.brokers, BrokerAddress(2, elsewhere)))
    silent = BrokerFacts(elsewhere, refusal="inside.example has no address")
    findings = list(judge_clients(replace(CLIENTS, answer=answer, others=(BROKER, silent))))
    assert bad(findings) == {"clients.brokers": Severity.PROBLEM}
    assert "inside.example:9092" in findings[-1].text
    stranger = replace(BROKER, address=elsewhere, cluster_id="other")
    findings = list(judge_clients(replace(CLIENTS, answer=answer, others=(BROKER, stranger))))
    assert "cluster other" in findings[-1].text


def test_a_cluster_that_sends_everybody_to_themselves_is_a_warning() -> None:
    me = Address("localhost", 9092)
    answer = replace(BROKER, brokers=(BrokerAddress(1, me),))
    facts = replace(CLIENTS, answer=answer, others=(replace(BROKER, address=me),), listen=None)
    findings = [found for found in judge_clients(facts) if found.check == "clients.brokers"]
    assert [found.severity for found in findings] == [Severity.WARNING]
    assert "such as broker.example:9092" in findings[0].remedy
    local = replace(facts, told=Address("127.0.0.1", 9092))
    assert bad(judge_clients(local)) == {}


def test_a_cluster_without_brokers_is_a_problem() -> None:
    facts = replace(CLIENTS, answer=replace(BROKER, brokers=()), others=())
    assert bad(judge_clients(facts)) == {"clients.brokers": Severity.PROBLEM}


def test_what_clients_are_told_is_what_the_agent_tells_them() -> None:
    config = config_of(listen=["0.0.0.0:9092", "127.0.0.1:0"], advertise=["broker.example", "b.example:1"])
    assert told_addresses(config) == [Address("broker.example", 9092), Address("b.example", 1)]
    assert told_addresses(config_of()) == [Address("127.0.0.1", 9092)]


def test_of_several_directories_one_that_is_held_tells_most() -> None:
    held, nobody, unknown = (
        Holder(state) for state in (HolderState.HELD, HolderState.NOBODY, HolderState.UNKNOWN)
    )
    assert most_telling([nobody, held, unknown]) is held
    assert most_telling([nobody, unknown]) is unknown
    assert most_telling([nobody]) is nobody
    assert most_telling([]).state is HolderState.UNKNOWN


def test_what_is_wrong_with_a_listener_is_said_once() -> None:
    assert is_wrong(PortFacts(LISTEN, BindState.TAKEN, broker=SILENT))
    assert is_wrong(PortFacts(LISTEN, BindState.NOT_HERE))
    assert not is_wrong(PortFacts(LISTEN, BindState.TAKEN, broker=BROKER))
    assert not is_wrong(PortFacts(LISTEN, BindState.FREE))
