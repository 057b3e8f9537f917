"""Start the server in a sandbox and talk to it. Whatever comes back is treated as written by an enemy.

Bubblewrap gives the server a view of its own: the system's libraries, Python and the course's package, all read-only,
an empty home and /tmp of limited size, no network, no other process. The server adds limits from within before it
executes anything (`server.confine`). A sandbox that breaks a rule is ended and says why; the next one starts afresh.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tools.classroom import server
from tools.classroom.server import HEAD, MAX_BLOCK, MAX_TEXT, BadFrameError, Decoder, Encoder, frame

ROOT = Path(__file__).resolve().parent.parent.parent
INSTALL = "bubblewrap (bwrap) is needed to run students' code safely: sudo apt-get install bubblewrap"


@dataclass(frozen=True)
class Limits:
    """What one submission may use; sizes in bytes, times in seconds."""

    memory: int = 4 << 30
    disk: int = 64 << 20
    output: int = 16 << 20
    files: int = 128
    processes: int = 12
    call: float = 10.0
    """For one call of a student's function."""
    cell: float = 60.0
    """For executing one cell."""
    total: float = 180.0
    """For everything, in wall time and, in each process, in processor time."""


class SandboxFailure(BaseException):
    """The sandbox was ended; the message says why. Not an Exception: no test may take it for an answer."""


class SandboxMissingError(RuntimeError):
    """No sandbox can be made here; the message says what to do."""


class StudentError(Exception):
    """An exception that was raised inside the sandbox, with its place in the student's cells."""

    kind = text = cell = ""
    line = 0


def student_error(details: Any) -> StudentError:
    """An exception that is a `StudentError` and, where possible, of the same built-in type as inside."""
    kind, builtin, text, cell, line = details
    if [type(part) for part in details] != [str, str, str, str, int]:
        raise BadFrameError("an error of no known form")
    base = getattr(server.builtins, builtin, None)
    bases: tuple[type, ...] = (StudentError,)
    if isinstance(base, type) and issubclass(base, Exception) and base not in (Exception, StopIteration):
        bases = (StudentError, base)
    try:
        error = type("StudentError", bases, {})(text)
    except TypeError:  # a type with a constructor of its own
        error = StudentError(text)
    error.kind, error.text, error.cell, error.line = kind[:80], text[:500], cell[:80], line
    return error


def bubblewrap(inside: list[str]) -> list[str]:
    """The command that runs a command in a sandbox."""
    program = shutil.which("bwrap")
    if not program:
        raise SandboxMissingError(INSTALL)
    command = [program, "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    if os.geteuid() == 0:  # the server drops to a user of its own, see `confine`
        command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-all", "--uid", "1000", "--gid", "1000"]
    command += ["--hostname", "sandbox"]
    for name, value in environment().items():
        command += ["--setenv", name, value]
    # before what follows: Python may live below /tmp or /home
    size = str(Limits.disk)
    command += ["--proc", "/proc", "--dev", "/dev", "--perms", "0755", "--dir", "/home"]
    for folder in ("/tmp", "/home/student"):
        command += ["--perms", "1777", "--size", size, "--tmpfs", folder]
    made = {Path("/home"), Path("/tmp"), Path("/home/student")}
    for source, target in [*visible(), (Path(server.__file__), Path("/course/server.py"))]:
        for parent in reversed(target.parents[:-1]):
            if parent not in made:
                made.add(parent)
                command += ["--perms", "0755", "--dir", str(parent)]
        if source.is_symlink() and source == target:
            command += ["--symlink", os.readlink(source), str(target)]
        else:
            command += ["--ro-bind", str(source), str(target)]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/home/student"]
    return [*command, *inside]


def python() -> str:
    """This interpreter, by a path that exists inside."""
    return str(Path(sys.executable).parent.resolve() / Path(sys.executable).name)


def environment() -> dict[str, str]:
    """The variables that the server has; nothing of the grader's own."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "RAYON")}
    paths = {"PATH": "/usr/bin:/bin", "HOME": "/home/student", "MPLCONFIGDIR": "/tmp/matplotlib"}
    quiet = {"MPLBACKEND": "agg", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**threads, **paths, **quiet, "LANG": "C.UTF-8", "PYTHONUTF8": "1"}


def visible() -> list[tuple[Path, Path]]:
    """What the sandbox sees, read-only: system libraries, Python with its environment, the course's package."""
    system = ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"]
    found = [Path(path) for path in system if os.path.lexists(path)]
    for prefix in (Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve()):
        if not any(prefix == path or path in prefix.parents for path in found if not path.is_symlink()):
            found.append(prefix)
    return [*((path, path) for path in found), (ROOT / "lmtl_course", Path("/course/lmtl_course"))]


def reason_against() -> str:
    """Why no sandbox can be made on this machine; empty where one can."""
    try:
        check = [python(), "-I", "-c", "import json"]
        done = subprocess.run(bubblewrap(check), capture_output=True, text=True, timeout=30, check=False)
    except SandboxMissingError as error:
        return str(error)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not start: {error}"
    if not done.returncode:
        return ""
    hint = "; if this system forbids user namespaces: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    hint = hint if "uid map" in done.stderr or "ermi" in done.stderr else ""
    return f"bubblewrap cannot make a sandbox here: {done.stderr.strip()[-300:]}{hint}"


def refuse_visible(*paths: Path) -> None:
    """Raise SandboxMissingError where a folder lies in what the sandbox shows, /usr for instance."""
    shown = [source.resolve() for source, _ in visible()]
    for path in [ROOT / "assignments", *paths]:
        for folder in shown:
            if folder == path.resolve() or folder in path.resolve().parents:
                raise SandboxMissingError(f"{path} lies in {folder}, which students' code can read; move it elsewhere")


class Sandbox:
    """One server process and the pipe to it."""

    def __init__(self, limits: Limits, deadline: float, unsafe: bool = False) -> None:
        self.limits, self.deadline, self.count, self.reason, self.printed = limits, deadline, 0, "", 0
        self.handle: Callable[[str, list[Any]], Any] = _no_handles
        confined = os.geteuid() == 0 and not unsafe
        values = {
            "uid": 61184 + os.getpid() % 4000 if confined else 0,
            "course": str(ROOT) if unsafe else "/course",
            "memory": limits.memory,
            "seconds": int(limits.total) + 1,
            "disk": limits.disk,
            "files": limits.files,
            "processes": 4096 if unsafe else limits.processes,
        }
        program = server.__file__ if unsafe else "/course/server.py"
        command = [python(), "-I", program, json.dumps(values)]
        self.process = subprocess.Popen(
            command if unsafe else bubblewrap(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment() | {"HOME": "/nonexistent"} if unsafe else {},
            start_new_session=True,
        )
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
        self.requests, self.replies, self.output = self.process.stdin, self.process.stdout, self.process.stderr
        os.set_blocking(self.requests.fileno(), False)
        self.first_output = b""
        self.reader = threading.Thread(target=self._drain, daemon=True)
        self.reader.start()

    def _drain(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(self.output.fileno(), 1 << 16):
                self.printed += len(chunk)
                self.first_output += chunk[: 10_000 - len(self.first_output)]
                if self.printed > self.limits.output:
                    self._kill(f"it printed more than {self.limits.output >> 20} MB")

    def _kill(self, reason: str) -> None:
        self.reason = self.reason or reason
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)  # the pid namespace, where there is one, ends with it

    def stop(self) -> None:
        """End the server and all that it started."""
        self._kill("it was stopped")
        self.process.wait()
        self.reader.join(1)
        for pipe in (self.requests, self.replies, self.output):
            with contextlib.suppress(OSError):
                pipe.close()

    def fail(self, reason: str) -> SandboxFailure:
        """End the sandbox; the exception to raise."""
        self._kill(reason)
        self.process.wait()
        return SandboxFailure(self.reason)

    def request(self, op: str, seconds: float, encode: Callable[[Any], list[Any]], **values: Any) -> Any:
        """Send a request and return the answer's value.

        Raises:
            StudentError: the student's code raised an exception.
            SandboxFailure: a limit was passed, the process ended, or the answer was none.
        """
        if self.reason:
            raise SandboxFailure(self.reason)
        self.count += 1
        encoder = Encoder(encode)
        message = {"id": self.count, "op": op} | {key: encoder.tree(value) for key, value in values.items()}
        wait = Clock(min(time.monotonic() + seconds, self.deadline), seconds)
        self._send(frame(message, encoder.chunks), wait)
        text_size, block_size = HEAD.unpack(self._receive(HEAD.size, wait))
        if text_size > MAX_TEXT or block_size > MAX_BLOCK:
            raise self.fail(f"an answer of {text_size + block_size:,} bytes is too long")
        text, block = self._receive(text_size, wait), self._receive(block_size, wait)
        try:
            reply = json.loads(text)
            if type(reply) is not dict or reply.get("id") != self.count or len(reply) != 2:
                raise BadFrameError("not the answer to what was asked")
            if "error" in reply:
                error = student_error(reply["error"])
            else:
                return Decoder(block, self.handle).value(reply["value"])
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            raise self.fail(f"it sent something that is not an answer ({str(problem)[:100]})") from None
        raise error

    def _send(self, data: bytes, wait: "Clock") -> None:
        view = memoryview(data)
        while view:
            self._watch(wait)
            if select.select([], [self.requests], [], 0.1)[1]:
                try:
                    view = view[os.write(self.requests.fileno(), view) :]
                except BlockingIOError:
                    continue
                except OSError:
                    raise self._ended() from None

    def _receive(self, size: int, wait: "Clock") -> bytes:
        data = bytearray()
        while len(data) < size:
            self._watch(wait)
            if select.select([self.replies], [], [], 0.1)[0]:
                chunk = os.read(self.replies.fileno(), min(size - len(data), 1 << 20))
                if not chunk:
                    raise self._ended()
                data += chunk
        return bytes(data)

    def _watch(self, wait: "Clock") -> None:
        now = time.monotonic()
        if now > wait.end:
            over = "all its time" if wait.end == self.deadline else f"more than {wait.seconds:g} seconds"
            raise self.fail(f"it took {over}")
        if now > wait.next_look:
            wait.next_look = now + 0.2
            if self._memory() > self.limits.memory:
                raise self.fail(f"it used more than {self.limits.memory / 2**30:g} GB of memory")

    def _memory(self) -> int:
        total = 0
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
        return total

    def _ended(self) -> SandboxFailure:
        self.reader.join(0.5)
        try:
            status = self.process.wait(1)
        except subprocess.TimeoutExpired:  # it closed the pipe and lives on
            return self.fail("it closed the pipe to the tests")
        number = -status if status < 0 else status - 128  # bubblewrap says 128 + signal
        names = {one.value: one.name for one in signal.Signals}
        return self.fail(f"its process ended ({names.get(number, f'exit with status {status}')})")


@dataclass
class Clock:
    """When to give up waiting, and when to look after the memory again."""

    end: float
    seconds: float
    next_look: float = 0.0


def _no_handles(word: str, rest: list[Any]) -> Any:
    raise BadFrameError(f"a value of no known kind, {word[:20]!r}")
