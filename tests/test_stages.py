import logging
import subprocess
import sys

import pytest

from photomask.stages import stage


def test_a_stage_tells_its_start_and_its_duration(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "photomask.somewhere")

    @stage("photomask.somewhere", "work")
    def work(x: int) -> int:
        return x + 1

    assert work(1) == 2
    started, done = caplog.records
    assert (started.name, started.getMessage()) == ("photomask.somewhere", "work: started")
    assert done.getMessage().startswith("work: done in 0.0")


def test_a_stage_that_fails_tells_no_end(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "photomask.somewhere")
    with pytest.raises(KeyError), stage("photomask.somewhere", "work"):
        raise KeyError
    assert [record.getMessage() for record in caplog.records] == ["work: started"]


def test_the_library_says_nothing_unless_it_is_asked():
    code = (
        "import logging, photomask\n"
        "logging.getLogger('photomask.chip').warning('heard')\n"
        "logging.basicConfig(level=logging.INFO, format='%(name)s %(message)s')\n"
        "logging.getLogger('photomask.chip').info('heard now')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "photomask.chip heard now\n")
