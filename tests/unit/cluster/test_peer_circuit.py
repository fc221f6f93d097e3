"""How long a peer that fails is left alone."""

from __future__ import annotations

from warp.cluster.peer_circuit import Circuit, CircuitLimits

LIMITS = CircuitLimits()


def test_pauses_double_up_to_a_bound_and_begin_anew_after_a_success() -> None:
    circuit = Circuit(LIMITS)
    now = 100.0
    for pause_s in (1, 2, 4, 8, 16, 30, 30):
        assert not circuit.is_open(now)
        circuit.failed(now)
        assert circuit.is_open(now + pause_s - 0.01)
        now += pause_s
    circuit.succeeded()
    circuit.failed(now)
    assert not circuit.is_open(now + 1)


def test_requests_that_fail_together_are_one_failure() -> None:
    circuit = Circuit(LIMITS)
    for moment in range(10):
        circuit.failed(100.0 + moment / 100)
    assert circuit.is_open(100.99)
    assert not circuit.is_open(101.0)


def test_slow_answers_count_when_there_are_several_in_a_row() -> None:
    circuit = Circuit(LIMITS)
    for _ in range(5):
        circuit.was_slow(100.0)
        circuit.was_slow(100.0)
        assert not circuit.is_open(100.0)
        circuit.succeeded()
    for _ in range(3):
        circuit.was_slow(100.0)
    assert circuit.is_open(100.0)


def test_after_a_pause_one_slow_answer_is_enough() -> None:
    circuit = Circuit(LIMITS)
    circuit.failed(100.0)
    circuit.was_slow(101.0)
    assert circuit.is_open(102.99)
    assert not circuit.is_open(103.0)


def test_a_success_of_a_request_that_was_under_way_ends_the_pause() -> None:
    circuit = Circuit(LIMITS)
    circuit.failed(100.0)
    circuit.succeeded()
    assert not circuit.is_open(100.1)
