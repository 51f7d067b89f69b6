"""What the receiver remembers of definitions: bounded by tags, fetched from the store when forgotten."""

from __future__ import annotations

from cloud.definitions import Definitions
from cloud.store.contract import Defined
from cloud.store.memory import MemoryStore
from protocols.uplink import definition
from protocols.uplink.columns import Base
from protocols.uplink.definition import Definition
from protocols.uplink.topics import DefinitionTopic, MachineTopic, Plant
from protocols.values import ValueType

PLANT = Plant("acme", "north", "p1")
PRESS = MachineTopic(PLANT, "press")
OVEN = MachineTopic(PLANT, "oven")


class CountingStore(MemoryStore):
    """Counts how often it is asked."""

    asked = 0

    def definition(self, machine: MachineTopic, ref: bytes) -> bytes | None:
        self.asked += 1
        return super().definition(machine, ref)


def made(group: str, tags: int = 1) -> tuple[bytes, Definition, bytes]:
    """(reference, definition, message)."""
    found = Definition(
        *("gw-1", "aa", "plc-1", group, 0),
        tuple((f"t{at}", ValueType.INT, "") for at in range(tags)),
        (Base(),) * tags,
    )
    message = definition.encode(found)
    return definition.ref(message), found, message


def store_with(*messages: tuple[bytes, Definition, bytes]) -> CountingStore:
    store = CountingStore()
    store.add_tenant(PLANT.tenant)
    store.add_plant(PLANT)
    store.commit(
        [Defined(DefinitionTopic(PRESS, "plc-1", said.group), ref, said, message, 0) for ref, said, message in messages]
    )
    return store


def test_what_was_learned_is_known_without_the_store() -> None:
    known, store, (ref, said, _) = Definitions(), store_with(), made("main")
    known.learn(PRESS, ref, said)
    assert known.find(store, PRESS, ref) == said
    assert store.asked == 0


def test_what_the_store_has_is_fetched_once() -> None:
    known, (ref, said, message) = Definitions(), made("main")
    store = store_with((ref, said, message))
    assert known.find(store, PRESS, ref) == said
    assert known.find(store, PRESS, ref) == said
    assert store.asked == 1


def test_what_nobody_knows_is_asked_for_each_time() -> None:
    known, store, (ref, said, _) = Definitions(), store_with(), made("main")
    assert known.find(store, PRESS, ref) is None
    assert known.find(store, PRESS, ref) is None
    assert store.asked == 2
    known.learn(PRESS, ref, said)
    assert known.find(store, OVEN, ref) is None, "another machine's"


def test_the_least_recently_used_are_forgotten_beyond_the_bound() -> None:
    known, several = Definitions(tags_max=25), [made(f"g{at}", tags=10) for at in range(3)]
    store = store_with(*several)
    (first, said, _), (second, _, _), (third, _, _) = several
    for ref, one, _ in several[:2]:
        known.learn(PRESS, ref, one)
    assert known.find(store, PRESS, first) == said  # used last now
    known.learn(PRESS, third, several[2][1])
    assert store.asked == 0
    for ref, asked in [(first, 0), (third, 0), (second, 1), (third, 1), (first, 2)]:
        assert known.find(store, PRESS, ref) is not None
        assert store.asked == asked


def test_one_that_is_over_the_bound_alone_serves_all_the_same() -> None:
    known, (ref, said, message) = Definitions(tags_max=5), made("large", tags=10)
    store = store_with((ref, said, message))
    assert known.find(store, PRESS, ref) == said
    assert known.find(store, PRESS, ref) == said
    assert store.asked == 1


def test_learning_again_counts_once() -> None:
    known, several = Definitions(tags_max=20), [made(f"g{at}", tags=10) for at in range(2)]
    store = store_with(*several)
    for ref, said, _ in several * 5:
        known.learn(PRESS, ref, said)
    for ref, said, _ in several:
        assert known.find(store, PRESS, ref) == said
    assert store.asked == 0
