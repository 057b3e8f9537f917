"""What benchmarks share: the head of every results file, so that a ratio can be read years later, and peak memory."""

import json
import platform
import sys
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
