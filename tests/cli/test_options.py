"""One option has one name and one meaning in every command of both pipelines."""

from collections import defaultdict
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import photomask.cli
from photomask.cli import app
from photomask.cli.options import RENAMED

SHARED = {"--device", "--json", "--html", "--recipe", "--target"}
"""Options that say the same wherever they are."""
WITH_DATA = {
    "chip convert", "chip import", "chip search", "chip train", "chip tune", "chip verify",
    "attention calibrate", "attention verify",
}  # fmt: skip


def commands() -> dict[str, Any]:
    """Returns every command by its name behind `photomask`."""
    return {
        f"{group_name} {name}": command
        for group_name, group in get_command(app).commands.items()  # type: ignore[attr-defined]
        for name, command in group.commands.items()
    }


def options() -> dict[str, dict[str, Any]]:
    """Returns option → command → its parameter."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for command_name, command in commands().items():
        for parameter in command.params:
            for name in parameter.opts:
                if name.startswith("--"):
                    found[name][command_name] = parameter
    return found


@pytest.mark.parametrize("name", sorted(SHARED))
def test_a_shared_option_says_the_same_everywhere(name: str):
    found = options()[name].values()
    assert len(found) > 1
    assert len({(option.metavar, option.help) for option in found}) == 1


def test_data_is_data_in_every_command_that_takes_some():
    assert set(options()["--data"]) == WITH_DATA
    assert not set(RENAMED) & set(options())


def test_a_device_is_a_gpu_by_default_wherever_there_is_a_choice():
    assert {option.default for option in options()["--device"].values()} == {None}


def test_what_both_pipelines_do_has_one_name():
    verbs = defaultdict(set)
    for name in commands():
        group, verb = name.split()
        verbs[group].add(verb)
    assert verbs["chip"] & verbs["attention"] == {"show", "verify"}


@pytest.mark.parametrize("group", ["chip", "attention"])
def test_verify_takes_the_original_and_then_what_was_made_from_it(group: str):
    parameters = commands()[f"{group} verify"].params
    arguments = [one.name for one in parameters if one.param_type_name == "argument"]
    assert arguments == ["model", {"chip": "folder", "attention": "plan_file"}[group]]


@pytest.mark.parametrize("old", RENAMED)
@pytest.mark.parametrize("command", ["chip convert", "attention calibrate"])
def test_a_name_of_earlier_versions_is_refused_with_the_new_one(old: str, command: str):
    done = CliRunner().invoke(app, [*command.split(), "MODEL", old, "x", "--output", "y"])
    assert done.exit_code == 2
    assert old in done.output
    assert RENAMED[old] in done.output


def test_the_exit_statuses_are_said_in_the_same_words_everywhere():
    text = " ".join((photomask.cli.__doc__ or "").split())
    statuses = text[text.index("Exit status") :]
    assert "130" in statuses
    assert "141" in statuses
    done = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert statuses in " ".join(done.stdout.split())
