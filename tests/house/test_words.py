import re

from tests.house.sources import ROOT, python_files, tracked_texts

NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "common", "misc"}
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
OF_ONE_MACHINE = re.compile(r"(?<![\w.*])/(home|root|Users|work)/\w")


def test_every_module_says_what_it_is_about():
    vague = [path for path in python_files() if path.stem in NAMES_THAT_SAY_NOTHING]
    assert not vague


def test_nothing_is_left_for_later():
    assert not [path for path, text in tracked_texts() if UNFINISHED.search(text)]


def test_no_text_names_a_path_of_one_machine():
    assert not [path for path, text in tracked_texts() if OF_ONE_MACHINE.search(text)]


def test_every_package_of_the_source_has_a_docstring_file():
    folders = {path.parent for path in (ROOT / "src" / "photomask").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_the_package_proves_no_type_by_an_assertion():
    excused = "noqa: S" + "101"
    assert not [
        path for path, text in tracked_texts() if path.startswith("src/") and excused in text
    ]


def test_no_text_holds_both_sides_of_a_merge():
    marker = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
    assert not [path for path, text in tracked_texts() if marker.search(text)]
