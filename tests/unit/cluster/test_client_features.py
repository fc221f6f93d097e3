"""What is read out of a client.id, and that nothing in one does harm."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from warp.cluster.client_features import (
    CHARACTERS_MAX,
    VALUE_CHARACTERS_MAX,
    ClientFeatures,
    Strategy,
    client_features,
)
from warp.metadata.cluster_model import FETCH, PRODUCE

NOTHING = ClientFeatures()


@pytest.mark.parametrize(
    "client_id", [None, "", "rdkafka", "a=b", "az=here", "ws_az", "ws_az=", "=", ",,=,", "WS_AZ=a"]
)
def test_a_client_id_without_features_wishes_nothing(client_id: str | None) -> None:
    assert client_features(client_id) == NOTHING


@pytest.mark.parametrize("name", ["warp_az", "ws_az", "warpstream_az"])
@pytest.mark.parametrize(
    "client_id", ["{}=zone-a", "orders,{}=zone-a", "{}=zone-a,orders-1", "a=b, {} = zone-a ,c=d"]
)
def test_the_zone_is_found_anywhere(client_id: str, name: str) -> None:
    assert client_features(client_id.format(name)).zone == "zone-a"


def test_a_value_may_hold_equals_signs() -> None:
    assert client_features("ws_az=a=b").zone == "a=b"


@pytest.mark.parametrize("prefix", ["warp", "ws", "warpstream"])
@pytest.mark.parametrize("name", ["proxy_target", "pt"])
@pytest.mark.parametrize(
    ("value", "role"), [("proxy-produce", PRODUCE), ("proxy-consume", FETCH), ("fetch", FETCH)]
)
def test_a_target_is_a_role(prefix: str, name: str, value: str, role: str) -> None:
    assert client_features(f"x,{prefix}_{name}={value}") == ClientFeatures(role=role)


@pytest.mark.parametrize("prefix", ["warp", "ws", "warpstream"])
@pytest.mark.parametrize("name", ["partition_assignment_strategy", "pas"])
@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_strategy_is_found_by_its_name(prefix: str, name: str, strategy: Strategy) -> None:
    assert client_features(f"{prefix}_{name}={strategy.value}").strategy is strategy


def test_values_that_are_not_known_leave_the_default_and_are_told() -> None:
    found = client_features("ws_pas=equal_spread,ws_pt=proxy-everything,ws_pas=equal_spread")
    assert found == ClientFeatures(unknown=("ws_pas=equal_spread", "ws_pt=proxy-everything"))


def test_of_a_feature_given_twice_the_first_counts_that_is_known() -> None:
    found = client_features("ws_az=a,warp_az=b,ws_pas=odd,ws_pas=consistent,warp_pas=single_agent")
    assert (found.zone, found.strategy) == ("a", Strategy.CONSISTENT)


def test_a_long_value_is_cut_and_is_no_name_any_more() -> None:
    longest = "z" * VALUE_CHARACTERS_MAX
    assert client_features(f"ws_az={longest}").zone == longest
    cut = client_features(f"ws_az={longest}z").zone
    assert cut is not None
    assert cut != longest
    assert len(cut) == VALUE_CHARACTERS_MAX + 1


def test_what_stands_far_back_is_not_looked_at() -> None:
    assert client_features("x" * CHARACTERS_MAX + ",ws_az=a") == NOTHING


@given(st.text(max_size=2_000))
def test_any_text_is_read_without_harm(client_id: str) -> None:
    found = client_features(client_id)
    assert found.zone is None or len(found.zone) <= VALUE_CHARACTERS_MAX + 1
    assert sum(map(len, found.unknown)) <= CHARACTERS_MAX + len(found.unknown)


@given(
    st.lists(
        st.sampled_from(
            ["ws_az=", "warp_pt=", "=", ",", "proxy-consume", "ws_pas", "é", "\0", " ", "\n", "a" * 99]
        )
    )
)
def test_what_looks_like_features_is_read_without_harm(pieces: list[str]) -> None:
    found = client_features("".join(pieces))
    assert found.strategy is Strategy.SINGLE_AGENT
    assert found.role in (None, FETCH)
