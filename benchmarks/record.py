"""What benchmarks share: the head of every results file, so that a ratio can be read years later, and peak memory."""

import json
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # `python benchmarks/<name>.py` then finds the package and the tools of this checkout

from tools.notebooks import hardware as processor  # noqa: E402

RESULTS = Path(__file__).parent / "results"


def hardware(device: str = "cpu") -> str:
    """The processor with its threads, or the GPU with its libraries."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return f"{processor()}, {torch.get_num_threads()} threads"


def stamp(command: str, device: str = "cpu") -> dict[str, Any]:
    """Command, date, hardware and versions: the head of every results file."""
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]},
    }


def peak_bytes() -> int:
    """The most resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: ru_maxrss would start from the parent's peak, VmHWM starts with the program
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def write(name: str, record: dict[str, Any]) -> None:
    """Write benchmarks/results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")


class Runs:
    """Runs by name, each written as soon as it is done: a benchmark can be cut short and gone on with.

    What the file holds is not measured again, and another process may add to it meanwhile. A quick look keeps its runs
    to itself. `most` ends after so many new ones; `shown` says of a run what is printed.
    """

    def __init__(self, name: str, shown: Callable[[dict[str, Any]], str], quick: bool = False, most: int = 1000):
        self.name, self.shown, self.quick, self.left = name, shown, quick, most
        self.runs: dict[str, Any] = {} if quick else self.written()

    def written(self) -> dict[str, Any]:
        """What stands in the file by now."""
        path = RESULTS / f"{self.name}.json"
        return json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else {}

    def add(self, run: str, make: Callable[[], dict[str, Any]]) -> None:
        """Make a run, print and write it; nothing, if it is there already."""
        if run in (self.runs if self.quick else self.written()) or not self.left:
            return
        self.left -= 1
        start = time.perf_counter()
        found = make()
        seconds = round(time.perf_counter() - start, 1)
        self.runs[run] = found | {"seconds": seconds}
        print(f"{run:44s} {self.shown(found)}  {seconds:6.1f} s", flush=True)
        if not self.quick:
            self.runs = self.written() | {run: self.runs[run]}
            write(self.name, {**stamp(f"python benchmarks/{self.name}.py"), "runs": self.runs})
