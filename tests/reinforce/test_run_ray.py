"""On a real Ray, with workers that die."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mcliplib.errors import UserError
from tests.reinforce.reinforce_run import TEACHERS, TinyTeacher, contents, go, write_input

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> object:
    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}}  # of the teachers' modules
    for _ in range(10):  # Ray gives up after 30 seconds, which a busy machine may need
        try:
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error", runtime_env=here)
            break
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
    yield
    ray.shutdown()


def actors() -> list[psutil.Process]:
    """Our actors' processes, in the midst of a shard."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "_Actor.run" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_the_same_bytes_from_ray_also_where_an_actor_is_killed(tmp_path: Path) -> None:
    write_input(tmp_path / "in")
    go(tmp_path / "in", tmp_path / "local")
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            if busy := actors():
                os.kill(busy[0].pid, signal.SIGKILL)
                killed.append(busy[0].pid)
            time.sleep(0.02)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    slow = [replace(one, delay=0.05) for one in TEACHERS]
    result = go(tmp_path / "in", tmp_path / "ray", engine="ray", workers=2, teachers=slow)
    assert killed
    assert result.made == 40
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@pytest.mark.slow
def test_an_error_in_an_actor_is_one_line(tmp_path: Path) -> None:
    write_input(tmp_path / "in", shards=1)
    with pytest.raises(UserError) as error:
        go(tmp_path / "in", tmp_path / "set", engine="ray", workers=1, teachers=[Lying("lying", 24, 32)])
    assert str(error.value).startswith("teacher lying: gave")
    assert "\n" not in str(error.value)


class Lying(TinyTeacher):
    def encode_texts(self, texts: object) -> object:
        return super().encode_texts(texts)[:, :3]
