"""Which warnings are errors in the tests: ours, and those of others that we cause."""

import importlib.util
import warnings

import pytest


def warn(category: type[Warning], module: str) -> None:
    warnings.warn_explicit("old", category, "file.py", 1, module=module, registry={})


@pytest.mark.parametrize(
    "module",
    [
        "photomask",
        "photomask.attention.plugin.masks",
        "tests.house.test_warnings",
        "benchmarks.common",
        "examples.quickstart",
        "scripts.train",
        "page",
        "__main__",
        "<string>",
    ],
)
@pytest.mark.parametrize("category", [DeprecationWarning, PendingDeprecationWarning])
def test_what_our_modules_use_although_it_is_deprecated_is_an_error(
    module: str, category: type[Warning]
):
    with pytest.raises(category):
        warn(category, module)


@pytest.mark.parametrize("module", ["cutlass.base_dsl.dsl", "flash_attn.cute", "torch._dynamo"])
@pytest.mark.parametrize("category", [DeprecationWarning, PendingDeprecationWarning])
def test_what_other_packages_use_is_none(module: str, category: type[Warning]):
    with warnings.catch_warnings(record=True) as shown:
        warn(category, module)
    assert [str(each.message) for each in shown] == ["old"]


@pytest.mark.parametrize("category", [UserWarning, FutureWarning, RuntimeWarning])
@pytest.mark.parametrize("module", ["photomask.prompts", "torch.nn.modules.module"])
def test_every_other_warning_is_an_error(module: str, category: type[Warning]):
    """Where a package says something to its user, a wrapper of PyTorch may stand in between."""
    with pytest.raises(category):
        warn(category, module)


def test_a_deprecated_function_that_a_test_calls_is_an_error(tmp_path):
    path = tmp_path / "other_package.py"
    path.write_text(
        "import warnings\n"
        "def old():\n"
        "    warnings.warn('use new', DeprecationWarning, stacklevel=2)\n"
        "def inner():\n"
        "    old()\n"
    )
    spec = importlib.util.spec_from_file_location("other_package", path)
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    with pytest.raises(DeprecationWarning, match="use new"):
        package.old()
    with warnings.catch_warnings(record=True) as shown:
        package.inner()
    assert len(shown) == 1
