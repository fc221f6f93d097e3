"""Memory of answers is given back in order, once all bytes of each have been sent."""

from __future__ import annotations

from warp.server.unsent import UnsentMemory


def test_memory_is_given_back_when_the_last_byte_of_its_answer_has_left() -> None:
    memory = UnsentMemory()
    given_back: list[str] = []
    memory.written_bytes = 100
    memory.add(lambda: given_back.append("first"), 40)
    memory.add(lambda: given_back.append("second"), 100)
    memory.left(61)
    assert given_back == []
    memory.left(60)
    assert given_back == ["first"]
    memory.left(1)
    assert given_back == ["first"]
    assert memory
    memory.left(0)
    assert given_back == ["first", "second"]
    assert not memory


def test_when_nothing_will_be_sent_any_more_everything_is_given_back_once() -> None:
    memory = UnsentMemory()
    given_back: list[int] = []
    for number in range(3):
        memory.add(lambda number=number: given_back.append(number), 10)  # type: ignore[misc]
    memory.release_all()
    memory.release_all()
    memory.left(0)
    assert given_back == [0, 1, 2]
