"""One option has one name and one meaning in every command of both pipelines."""

from collections import defaultdict
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import photomask.cli
from photomask.cli import app
from photomask.cli.commands import RENAMED

OF_ITS_OWN = {
    # Results are the list itself, which is printed and not written to a file.
    ("list", "--json"),
    # What a page or a form does with an accelerator is said with it.
    ("chip verify", "--accelerator"), ("chip export", "--accelerator"),
    # What trains may also be all of Fashion-MNIST; prompts are other data than samples.
    ("chip train", "--data"), ("chip pretrain", "--data"), ("chip import", "--data"),
    ("attention calibrate", "--data"), ("attention verify", "--data"),
    ("attention lmms-task", "--data"),
    ("chip train", "--labels"), ("chip search", "--calibration-samples"),
    ("chip explore", "--calibration-samples"), ("chip explore", "--samples"),
    # The same seed in two processes would try the same points twice.
    ("chip explore", "--seed"),
    ("attention plan", "--budget"),
    # Blocks that are done go on by themselves, a training only by --resume.
    ("chip train", "--checkpoint"), ("chip pretrain", "--checkpoint"),
    # A method of pruning and one of pre-training have nothing in common.
    ("chip prune", "--method"), ("chip pretrain", "--method"),
    ("chip prune", "--data"), ("chip prune", "--labels"),
    ("chip export", "--format"),
}  # fmt: skip
"""Options that say of a command what they say of no other."""
DIFFERENT = {"--output"}
"""What is written says each command itself."""
WITH_DATA = {
    "chip convert", "chip explore", "chip import", "chip pretrain", "chip prune", "chip search",
    "chip train", "chip tune",
    "chip verify",
    "attention calibrate", "attention lmms-task", "attention verify",
}  # fmt: skip


def commands() -> dict[str, Any]:
    """Returns every command by its name behind `photomask`."""
    found = {}
    for group_name, group in get_command(app).commands.items():  # type: ignore[attr-defined]
        if not hasattr(group, "commands"):
            found[group_name] = group
            continue
        for name, command in group.commands.items():
            found[f"{group_name} {name}"] = command
    return found


def options() -> dict[str, dict[str, Any]]:
    """Returns option → command → its parameter."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for command_name, command in commands().items():
        for parameter in command.params:
            for name in parameter.opts:
                if name.startswith("--"):
                    found[name][command_name] = parameter
    return found


def test_an_option_says_the_same_everywhere():
    differing = {}
    for name, found in options().items():
        shared = {
            (option.metavar, option.help)
            for command, option in found.items()
            if (command, name) not in OF_ITS_OWN
        }
        if len(shared) > 1 and name not in DIFFERENT:
            differing[name] = shared
    assert not differing


def test_no_exception_outlives_its_reason():
    found = options()
    assert all(command in found[name] for command, name in OF_ITS_OWN)


@pytest.mark.parametrize("name", ["--quiet", "--verbose", "--help"])
def test_every_command_can_say_less_or_more(name: str):
    parameters = {
        command: {option for one in found.params for option in one.opts} | {"--help"}
        for command, found in commands().items()
    }
    assert all(name in names for names in parameters.values())


ORDER = ["--data", "--labels", "--output", "--recipe", "--target", "--accelerator",
         "--calibration-samples", "--golden-samples", "--device", "--json", "--html",
         "--quiet", "--verbose"]  # fmt: skip


@pytest.mark.parametrize("command", commands())
def test_required_options_come_first_and_all_stand_in_one_order(command: str):
    found = [one for one in commands()[command].params if one.opts[0] in ORDER]
    expected = sorted(found, key=lambda one: (not one.required, ORDER.index(one.opts[0])))
    assert [one.opts[0] for one in found] == [one.opts[0] for one in expected]


def test_data_is_data_in_every_command_that_takes_some():
    assert set(options()["--data"]) == WITH_DATA


def test_a_device_is_a_gpu_by_default_wherever_there_is_a_choice():
    assert {option.default for option in options()["--device"].values()} == {None}


def test_what_both_pipelines_do_has_one_name():
    verbs = defaultdict(set)
    for name in commands():
        group, _, verb = name.partition(" ")
        verbs[group].add(verb)
    assert verbs["chip"] & verbs["attention"] == {"show", "verify"}


@pytest.mark.parametrize("group", ["chip", "attention"])
def test_verify_takes_the_original_and_then_what_was_made_from_it(group: str):
    parameters = commands()[f"{group} verify"].params
    arguments = [one.name for one in parameters if one.param_type_name == "argument"]
    assert arguments == ["model", {"chip": "folder", "attention": "plan_source"}[group]]


OLD = [
    (command, old, new)
    for old, names in RENAMED.items()
    for where, new in names.items()
    for command in ([where] if where else ["chip convert", "attention calibrate"])
]


@pytest.mark.parametrize(("command", "old", "new"), OLD)
def test_a_name_of_earlier_versions_is_refused_with_the_new_one(command: str, old: str, new: str):
    assert old not in {option for one in commands()[command].params for option in one.opts}
    done = CliRunner().invoke(app, [*command.split(), "MODEL", old, "x", "--output", "y"])
    assert done.exit_code == 2
    assert f"{old} is called {new} now" in " ".join(done.output.split())


def test_the_exit_statuses_are_said_in_the_same_words_everywhere():
    text = " ".join((photomask.cli.__doc__ or "").split())
    statuses = text[text.index("Exit status") :]
    assert "130" in statuses
    assert "141" in statuses
    done = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert statuses in " ".join(done.stdout.split())
