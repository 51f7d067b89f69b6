"""A tree of nodes: what of it is shown, and its variables as tags."""

from __future__ import annotations

from agent.toolbox.nodes import Seen, as_tags, chosen, node_text, walked, with_ancestors
from protocols.field.opcua_nodes import parse_node


def tree() -> Seen:
    root = Seen("i=85", "i=85", "i=85", is_variable=False)
    for press in ("Press 1", "Press 2"):
        folder = Seen(press, press, press, False, 1, root)
        root.children.append(folder)
        for name, kind in (("Temperature", "Double"), ("Count", "UInt32"), ("Recipe", "String"), ("Odd", "Variant")):
            node = f"nsu=urn:x;s={press}.{name}"
            folder.children.append(Seen(name, node, node, True, 2, folder, type_name=kind, value=1))
    return root


def paths(nodes: list[Seen]) -> list[str]:
    return [seen.path for seen in nodes]


def test_what_is_chosen() -> None:
    root = tree()
    assert len(chosen(root, None)) == len(list(walked(root))) - 1 == 10
    assert paths(chosen(root, "TEMP")) == ["Press 1.Temperature", "Press 2.Temperature"]
    assert paths(chosen(root, "press 1.*")) == [
        "Press 1.Temperature", "Press 1.Count", "Press 1.Recipe", "Press 1.Odd"
    ]  # fmt: skip
    assert paths(chosen(root, "c*t")) == ["Press 1.Count", "Press 2.Count"]
    assert chosen(root, "nothing") == []
    above = with_ancestors(chosen(root, "press 2.count"[-5:])[1:])
    assert above == {id(root), id(root.children[1]), id(root.children[1].children[1])}


def test_variables_become_tags_with_names_of_their_own() -> None:
    root = tree()
    tags, unfit = as_tags(chosen(root, None), frozenset({"Press_1.Count", "Press_1.Count_2"}))
    assert [(tag["name"], tag["type"]) for tag in tags] == [
        ("Press_1.Temperature", "float64"),
        ("Press_1.Count_3", "uint"),
        ("Press_1.Recipe", "string"),
        ("Press_2.Temperature", "float64"),
        ("Press_2.Count", "uint"),
        ("Press_2.Recipe", "string"),
    ]
    assert paths(unfit) == ["Press 1.Odd", "Press 2.Odd"]
    array, silent = chosen(root, "Temperature")
    array.is_array, silent.trouble = True, "it has no value"
    assert as_tags([array, silent], frozenset()) == ([], [array, silent])


def test_names_of_any_length_stay_apart() -> None:
    root = Seen("r", "r", "r", is_variable=False)
    root.children = [Seen("ä" * 300 + "x" * 200, f"n{at}", "", True, 1, root, type_name="Boolean") for at in range(3)]
    tags, _ = as_tags(root.children, frozenset())
    names = [str(tag["name"]) for tag in tags]
    assert len(set(names)) == 3
    assert {len(name) for name in names} == {128}


def test_node_ids_are_read_back() -> None:
    text = node_text("urn:a;b%", "x=1;y", "s")
    assert text == "nsu=urn:a%3Bb%25;s=x=1;y"
    found = parse_node(text)
    assert (found.namespace, found.identifier) == ("urn:a;b%", "x=1;y")
    assert node_text(None, 2258, "i") == "i=2258"
