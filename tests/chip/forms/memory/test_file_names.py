import re

from hypothesis import given
from hypothesis import strategies as st

from photomask.chip.forms.memory.file_names import safe_names


def test_harmless_names_stay():
    assert safe_names(["layer1.0.conv1", "relu_2", "A-b"]) == ["layer1.0.conv1", "relu_2", "A-b"]


def test_names_that_would_collide_stay_different():
    names = safe_names(["a/b", "a:b", "A_B", "a_b", "a_b-2", "a/b"])
    assert names == ["a_b", "a_b-2", "A_B-3", "a_b-4", "a_b-2-2", "a_b-5"]


def test_device_names_folders_and_long_names_are_made_safe():
    names = safe_names(["..", "", "con", "NUL.x", "x" * 300, "x" * 301, "../etc"])
    assert names[:4] == ["_", "_-2", "_con", "_NUL.x"]
    assert len(names[4]) < 120
    assert names[4] != names[5]
    assert names[6] == "_etc"


@given(st.lists(st.text(max_size=12), max_size=20))
def test_names_are_safe_and_different_for_any_input(names):
    safe = safe_names(names)
    assert len({name.casefold() for name in safe}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name) for name in safe)
    assert not any(name.endswith(".") for name in safe)
