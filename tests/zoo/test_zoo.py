import inspect

from photomask import zoo


def test_all_equals_the_public_names():
    public = {
        name
        for name, value in vars(zoo).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(zoo.__all__)
    assert list(zoo.__all__) == sorted(zoo.__all__)
