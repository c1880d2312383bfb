"""Where a run's numbers go: one JSON line and one TensorBoard event per logged step."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypedDict

from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from mcliplib.errors import UserError
from mcliplib.files import MOST_JSON, Range, fitted, read_bytes, read_json, write_text, writing
from mcliplib.train.distributed import rank

METRICS_FILE = "metrics.jsonl"


class Metrics:
    """Writer of `metrics.jsonl` and TensorBoard events in a run's folder.

    Args:
        directory: the run's folder.
        from_step: lines at or after this step are dropped first: a resumed run writes them again.
    """

    def __init__(self, directory: Path, from_step: int = 0) -> None:
        self.path = directory / METRICS_FILE
        kept = [line for line in read_metrics(self.path) if line["step"] < from_step] if self.path.exists() else []
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        with writing(self.path):
            self._file = self.path.open("a", buffering=1)
            self._events = SummaryWriter(str(directory), purge_step=from_step)

    def log(self, step: int, values: Mapping[str, int | float]) -> None:
        """Write the values of one step."""
        with writing(self.path):
            self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close both files."""
        with writing(self.path):
            self._file.close()
            self._events.close()


class Report:
    """A run's progress bar and its metrics; silent in all processes but the first.

    Args:
        directory: the run's folder.
        pairs: in the whole run.
        seen: pairs before this start of the run.
        from_step: see `Metrics`.
        unit: word for a pair in the progress bar.
    """

    def __init__(self, directory: Path, *, pairs: int, seen: int, from_step: int, unit: str = "pair") -> None:
        self._metrics = Metrics(directory, from_step) if rank() == 0 else None
        self._bar = tqdm(total=pairs, initial=seen, unit=unit, mininterval=1.0, disable=rank() != 0)

    def advance(self, pairs: int, loss: float) -> None:
        """After a step."""
        self._bar.update(pairs)
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def log(self, step: int, values: Mapping[str, int | float]) -> None:
        """Write the values of one step."""
        if self._metrics is not None:
            self._metrics.log(step, values)

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._metrics is not None:
            self._metrics.close()


def read_metrics(path: str | Path) -> list[dict[str, int | float]]:
    """The lines of a `metrics.jsonl` up to the first one that a crash cut short or that is damaged.

    Raises:
        UserError: no such file, or none that can be read.
    """
    lines: list[dict[str, int | float]] = []
    for line in read_bytes(Path(path), MOST_JSON).splitlines():
        try:
            lines.append(fitted(read_json(line, f"{path}"), _Line, f"{path}"))
        except UserError:
            break
    return lines


class _Line(TypedDict):
    step: Annotated[int, Range(0, 1 << 40)]
