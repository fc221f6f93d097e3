"""What each kind of misfortune does to a place: begun on entry, put right on exit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

from tests.faults.agents import FaultyAgent
from tests.faults.network import Link
from tests.faults.places import Place
from tests.faults.schedule import Kind, Misfortune
from tests.support.fault_plan import (
    INTERNAL_ERROR,
    SLOW_DOWN,
    CutAnswer,
    CutRequest,
    Delay,
    Fault,
    Hang,
    Moment,
    Refuse,
)
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import PostgresServer, StopMode
from tests.support.postgres_proxy import CutAt, PostgresProxy

CLOCK_MINUTES = (1, 5)
LATE_S = 1.2
DISK_LEFT_BYTES = (0, 4 << 10, 96 << 10)
MODES: tuple[StopMode, ...] = ("fast", "immediate")
REFUSALS = (INTERNAL_ERROR, Refuse(503, "ServiceUnavailable"), Refuse(403, "AccessDenied"))
MOMENTS = tuple(Moment)
CUTS: tuple[Fault, ...] = (CutRequest(100), CutAnswer(), CutAnswer(40))

Action = Callable[[Place, Misfortune], AbstractContextManager[object]]


def begin(place: Place, misfortune: Misfortune) -> AbstractContextManager[object]:
    """It happens while this is entered."""
    return ACTIONS[misfortune.kind](place, misfortune)


@contextmanager
def _kill(place: Place, misfortune: Misfortune) -> Iterator[None]:
    agent = _agent(place, misfortune)
    with agent.is_held:
        agent.kill()
        try:
            yield
        finally:
            agent.start_again()


@contextmanager
def _freeze(place: Place, misfortune: Misfortune) -> Iterator[None]:
    agent = _agent(place, misfortune)
    with agent.is_held:
        agent.freeze()
        try:
            yield
        finally:
            agent.thaw()


@contextmanager
def _restart(place: Place, misfortune: Misfortune) -> Iterator[None]:
    agent = _agent(place, misfortune)
    with agent.is_held:
        agent.end_in_order()
        try:
            yield
        finally:
            agent.start_again()


@contextmanager
def _previous(place: Place, misfortune: Misfortune) -> Iterator[None]:
    """Both ways: to the release before, and back to this one."""
    agent = _agent(place, misfortune)
    with agent.is_held:
        agent.end_in_order()
        agent.is_previous = True
        agent.start_again()
        try:
            yield
        finally:
            agent.end_in_order()
            agent.is_previous = False
            agent.start_again()


@contextmanager
def _clock(place: Place, misfortune: Misfortune) -> Iterator[None]:
    source = random.Random(misfortune.variant)
    minutes = source.choice((-1, 1)) * source.uniform(*CLOCK_MINUTES)
    clock = place.clocks[_agent(place, misfortune).number]
    clock.shift(round(minutes * 60_000))
    try:
        yield
    finally:
        clock.shift(0)


@contextmanager
def _postgres_restart(place: Place, misfortune: Misfortune) -> Iterator[None]:
    with _postgres(place) as server:
        server.restart(MODES[misfortune.variant % 2])
    yield


@contextmanager
def _postgres_crash(place: Place, _: Misfortune) -> Iterator[None]:
    with _postgres(place) as server:
        server.crash()
        try:
            yield
        finally:
            server.start()


@contextmanager
def _postgres_pause(place: Place, _: Misfortune) -> Iterator[None]:
    with _postgres(place) as server:
        server.pause()
        try:
            yield
        finally:
            server.resume()


@contextmanager
def _postgres_loss(place: Place, misfortune: Misfortune) -> Iterator[None]:
    with _postgres(place) as server:
        server.stop(MODES[misfortune.variant % 2])
        try:
            yield
        finally:
            server.start()


@contextmanager
def _connections_cut(place: Place, misfortune: Misfortune) -> Iterator[None]:
    for proxy in _databases(place, misfortune):
        proxy.cut_all()
    yield


@contextmanager
def _commits_cut(place: Place, misfortune: Misfortune) -> Iterator[None]:
    with ExitStack() as stack:
        for proxy in _databases(place, misfortune):
            stack.enter_context(proxy.cutting_commits(tuple(CutAt), misfortune.share, LATE_S))
        yield


@contextmanager
def _postgres_held(place: Place, misfortune: Misfortune) -> Iterator[None]:
    """What was on its way arrives when it is over, or is cut then."""
    proxies = _databases(place, misfortune)
    with ExitStack() as stack:
        for proxy in proxies:
            stack.enter_context(proxy.holding())
        yield
        if misfortune.variant % 2:
            for proxy in proxies:
                proxy.cut_all()


@contextmanager
def _store_gone(place: Place, misfortune: Misfortune) -> Iterator[None]:
    stores = _stores(place, misfortune)
    for store in stores:
        store.vanish()
    try:
        yield
    finally:
        for store in stores:
            store.come_back()


def _store_fails(*faults: Fault) -> Action:
    """A share of the requests fails in one of these ways, or each in a share of its own where there are several."""

    @contextmanager
    def failing(place: Place, misfortune: Misfortune) -> Iterator[None]:
        with ExitStack() as stack:
            for store in _stores(place, misfortune):
                for fault in faults:
                    share = misfortune.share / len(faults)
                    stack.enter_context(store.failing(fault, share=share))
            yield

    return failing


def _isolated(link: Link) -> Action:
    @contextmanager
    def isolated(place: Place, misfortune: Misfortune) -> Iterator[None]:
        assert place.network is not None, "left out"
        with place.network.down(link, _agent(place, misfortune).number):
            yield

    return isolated


@contextmanager
def _disk_full(place: Place, misfortune: Misfortune) -> Iterator[None]:
    assert place.disk is not None, "left out"
    left_bytes = DISK_LEFT_BYTES[misfortune.variant % len(DISK_LEFT_BYTES)]
    with place.disk.full(left_bytes):
        yield


def _agent(place: Place, misfortune: Misfortune) -> FaultyAgent:
    assert misfortune.agent is not None, f"{misfortune.kind} happens to one agent"
    return place.agents[misfortune.agent]


@contextmanager
def _postgres(place: Place) -> Iterator[PostgresServer]:
    """For whoever comes first, while it is needed."""
    assert place.postgres is not None, "there is none at this place"
    with place.is_postgres_held:
        yield place.postgres


def _databases(place: Place, misfortune: Misfortune) -> list[PostgresProxy]:
    return place.databases if misfortune.agent is None else [place.databases[misfortune.agent]]


def _stores(place: Place, misfortune: Misfortune) -> list[FaultProxy]:
    return place.stores if misfortune.agent is None else [place.stores[misfortune.agent]]


ACTIONS: Mapping[Kind, Action] = {
    Kind.KILL: _kill,
    Kind.FREEZE: _freeze,
    Kind.RESTART: _restart,
    Kind.PREVIOUS: _previous,
    Kind.CLOCK: _clock,
    Kind.POSTGRES_RESTART: _postgres_restart,
    Kind.POSTGRES_CRASH: _postgres_crash,
    Kind.POSTGRES_PAUSE: _postgres_pause,
    Kind.POSTGRES_LOSS: _postgres_loss,
    Kind.CONNECTIONS_CUT: _connections_cut,
    Kind.COMMITS_CUT: _commits_cut,
    Kind.POSTGRES_HELD: _postgres_held,
    Kind.STORE_REFUSES: _store_fails(*REFUSALS),
    Kind.STORE_GONE: _store_gone,
    Kind.STORE_THROTTLES: _store_fails(SLOW_DOWN),
    Kind.STORE_HANGS: _store_fails(*(Hang(moment) for moment in MOMENTS)),
    Kind.STORE_LATE: _store_fails(Delay(LATE_S)),
    Kind.STORE_CUTS: _store_fails(*CUTS),
    Kind.NO_WAY_TO_POSTGRES: _isolated(Link.POSTGRES),
    Kind.NO_WAY_TO_STORE: _isolated(Link.STORE),
    Kind.NO_WAY_TO_AGENT: _isolated(Link.AGENTS),
    Kind.DISK_FULL: _disk_full,
}
