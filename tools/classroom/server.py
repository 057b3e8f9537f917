"""The program inside the sandbox, and the format in which both sides talk: JSON and raw bytes, never a pickle.

A frame is two lengths (4 bytes each, big-endian), a JSON text and a block of raw bytes. Values that JSON lacks are
lists that begin with a word, `["tensor", "float32", [2, 3], 0, 24, false]`; the bytes of tensors and arrays stand in
the block. `Decoder` believes nothing: words, counts, depths and sizes are checked; students can write to the pipe too.

This file is all that the sandbox gets to see of the tools, so it imports nothing of them.
"""

import builtins
import collections
import dataclasses
import importlib
import json
import linecache
import os
import platform
import random
import re
import struct
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

MODULE = "problem_set"
"""The name under which the cells of a set are a module, on both sides."""
MAX_TEXT, MAX_BLOCK, MAX_NODES, MAX_DEPTH = 8 << 20, 64 << 20, 200_000, 40
HEAD = struct.Struct(">II")
DTYPES = [
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "bool",
]
CONTAINERS: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class BadFrameError(ValueError):
    """What came over the pipe is not an answer."""


class Encoder:
    """Turn values into a tree for JSON and a list of byte chunks; `other` speaks for what cannot travel by value."""

    def __init__(self, other: Callable[[Any], list[Any]]) -> None:
        self.other, self.chunks, self.size = other, list[bytes](), 0

    def block(self, chunk: bytes) -> tuple[int, int]:
        """Keep a chunk; where it starts and how long it is."""
        self.chunks.append(chunk)
        self.size += len(chunk)
        return self.size - len(chunk), len(chunk)

    def tree(self, value: Any, depth: int = 0) -> Any:  # noqa: PLR0911, PLR0912 (one kind of value, one return)
        """The tree of a value."""
        kind = type(value)
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        if depth > MAX_DEPTH:
            raise ValueError(f"a value is nested deeper than {MAX_DEPTH} levels")
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if value - value == 0 else ["float", repr(value)]
        if kind is complex:
            return ["complex", self.tree(value.real), self.tree(value.imag)]
        if kind is bytes:
            return ["bytes", *self.block(value)]
        if kind is slice:
            return ["slice", *(self.tree(part, depth + 1) for part in (value.start, value.stop, value.step))]
        if kind.__name__ in CONTAINERS and kind is CONTAINERS[kind.__name__]:
            return [kind.__name__, *(self.tree(item, depth + 1) for item in value)]
        if kind in (dict, collections.Counter, collections.OrderedDict, collections.defaultdict):
            return ["dict", *([self.tree(key, depth + 1), self.tree(item, depth + 1)] for key, item in value.items())]
        if torch and isinstance(value, torch.dtype):
            return ["dtype", str(value).removeprefix("torch.")]
        if torch and isinstance(value, torch.Size):
            return ["tuple", *value]
        if torch and isinstance(value, torch.Generator):
            return ["generator", self.tree(value.get_state())]
        if torch and isinstance(value, torch.Tensor) and value.layout == torch.strided:
            name = str(value.dtype).removeprefix("torch.")
            if name in DTYPES:
                flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
                return ["tensor", name, list(value.shape), *self.block(flat.numpy().tobytes()), value.requires_grad]
        if numpy and isinstance(value, numpy.ndarray | numpy.generic) and value.dtype.kind in "biufcU":
            shape = list(value.shape) if isinstance(value, numpy.ndarray) else None
            return ["array", value.dtype.str, shape, *self.block(numpy.ascontiguousarray(value).tobytes())]
        return self.other(value)


class Decoder:
    """Turn a tree and a block of bytes back into values; whatever is out of order raises `BadFrameError`."""

    def __init__(self, block: bytes, other: Callable[[str, list[Any]], Any]) -> None:
        self.block, self.other, self.nodes = block, other, 0

    def value(self, tree: Any) -> Any:
        """The value of a tree."""
        try:
            return self._value(tree, 0)
        except BadFrameError:
            raise
        except Exception as error:  # a wrong shape, a key that cannot be hashed, a number with a million digits …
            raise BadFrameError(f"{type(error).__name__}: {str(error)[:100]}") from None

    def _bytes(self, start: Any, length: Any) -> bytes:
        if type(start) is not int or type(length) is not int or not 0 <= start <= start + length <= len(self.block):
            raise BadFrameError("bytes outside the frame")
        return self.block[start : start + length]

    def _shape(self, shape: Any) -> tuple[int, ...]:
        if len(shape) > 16 or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
            raise BadFrameError("an impossible shape")
        return tuple(shape)

    def _value(self, tree: Any, depth: int) -> Any:  # noqa: PLR0911, PLR0912 (one word, one return)
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise BadFrameError(f"a value with more than {MAX_DEPTH} levels or {MAX_NODES:,} parts")
        if tree is None or type(tree) in (bool, int, float, str):
            return tree
        if type(tree) is not list or not tree or type(tree[0]) is not str:
            raise BadFrameError("a value of no known kind")
        word, *rest = tree
        if word in CONTAINERS:
            return CONTAINERS[word](self._value(item, depth + 1) for item in rest)
        if word == "dict":
            return {self._value(key, depth + 1): self._value(item, depth + 1) for key, item in rest}
        if word == "float" and rest[0] in ("nan", "inf", "-inf"):
            return float(rest[0])
        if word == "complex":
            return complex(*(float(self._value(part, depth + 1)) for part in rest))
        if word == "bytes":
            return self._bytes(*rest)
        if word == "slice":
            return slice(*(self._value(part, depth + 1) for part in rest))
        if word == "dtype" and rest[0] in DTYPES:
            return getattr(importlib.import_module("torch"), rest[0])
        if word == "tensor" and rest[0] in DTYPES:
            import torch

            name, shape, start, length, grad = rest
            raw, dtype = self._bytes(start, length), getattr(torch, name)
            flat = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            return flat.reshape(self._shape(shape)).requires_grad_(bool(grad))
        if word == "array" and re.fullmatch(r"[<>|=][biufcU]\d{1,4}", rest[0]):
            import numpy

            name, shape, start, length = rest
            array = numpy.frombuffer(bytearray(self._bytes(start, length)), dtype=name)
            return array[0] if shape is None else array.reshape(self._shape(shape))
        if word == "generator":
            return importlib.import_module("torch").Generator().set_state(self._value(rest[0], depth + 1))
        if word == "record":  # a handle whose fields came along
            return self.other(word, [*rest[:3], [self._value(item, depth + 1) for item in rest[3:]]])
        return self.other(word, rest)


def frame(message: dict[str, Any], chunks: list[bytes]) -> bytes:
    """The bytes of a message, or ValueError where it is too large."""
    text, block = json.dumps(message).encode(), b"".join(chunks)
    if len(text) > MAX_TEXT or len(block) > MAX_BLOCK:
        raise ValueError(f"{len(text) + len(block):,} bytes are too many for one answer")
    return HEAD.pack(len(text), len(block)) + text + block


# ---------------------------------------------------------------------------------------------- inside the sandbox


def confine(limits: dict[str, int]) -> None:
    """Give up rights and set limits, before anything of a student's runs."""
    import resource

    if sys.platform == "linux":
        with open("/proc/self/oom_score_adj", "w") as file:  # where memory runs out, this process is the one to end
            file.write("1000")
    if limits["uid"]:  # started by root: from here on an ordinary user whom nobody else is, so that processes count
        os.setgroups([])
        os.setresgid(limits["uid"], limits["uid"], limits["uid"])
        os.setresuid(limits["uid"], limits["uid"], limits["uid"])
    names = {"AS": "memory", "CPU": "seconds", "FSIZE": "disk", "NOFILE": "files", "NPROC": "processes"}
    for name, key in names.items():
        if hasattr(resource, f"RLIMIT_{name}") and not (sys.platform == "darwin" and name == "AS"):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limits[key], limits[key]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        filter_calls()


FILTERED = {  # architecture: its number in the kernel, `clone`, and what no exercise needs
    # unshare setns mount umount2 pivot_root ptrace keyctl add_key request_key bpf perf_event_open userfaultfd
    # process_vm_readv process_vm_writev kexec_load memfd_create shmget
    "x86_64": (0xC000003E, 56, [272, 308, 165, 166, 155, 101, 250, 248, 249, 321, 298, 323, 310, 311, 246, 319, 29]),
    "aarch64": (0xC00000B7, 220, [97, 268, 40, 39, 41, 117, 219, 217, 218, 280, 241, 282, 270, 271, 104, 279, 194]),
}
EVERYWHERE = [425, 426, 427, 428, 429, 430, 431, 432, 433, 442]  # io_uring, and the newer ways to mount


def filter_calls() -> None:
    """Take away system calls by a seccomp filter: new namespaces, mounts, tracing, memory that no limit counts."""
    import ctypes

    if platform.machine() not in FILTERED:
        return
    architecture, clone, numbers = FILTERED[platform.machine()]
    load, equal, above, bits, leave = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, missing, kill = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (leave, 0, 0, kill), (load, 0, 0, 0)]
    program += [(above, 0, 1, 0x40000000), (leave, 0, 0, refuse)]
    for number in numbers + EVERYWHERE:
        program += [(equal, 0, 1, number), (leave, 0, 0, refuse)]
    program += [(equal, 0, 1, 435), (leave, 0, 0, missing)]  # clone3 hides its flags: libraries fall back to clone
    program += [(equal, 0, 3, clone), (load, 0, 0, 16), (bits, 0, 1, 0x10000000), (leave, 0, 0, refuse)]
    program += [(leave, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, header, 0, 0):
        raise OSError(ctypes.get_errno(), "the filter of system calls was refused")


class Server:
    """Executes cells, keeps what they make, and answers."""

    def __init__(self) -> None:
        module = ModuleType(MODULE)
        sys.modules[MODULE] = module
        self.namespace, self.given, self.objects = module.__dict__, dict[str, Any](), list[Any]()
        self.namespace.update(__builtins__=builtins, display=print)
        self.settled = False

    def encode_other(self, value: Any) -> list[Any]:
        """What is no data stays here, under a number; of records the fields go along."""
        self.objects.append(value)
        number, name = len(self.objects) - 1, type(value).__name__
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            fields = list(value._fields)
        elif getattr(getattr(type(value), "__dataclass_params__", None), "frozen", False):
            fields = [field.name for field in dataclasses.fields(value)]
        else:
            return ["handle", number, name]
        return ["record", number, name, fields, *(self.encoder.tree(getattr(value, f), 1) for f in fields)]

    def decode_other(self, word: str, rest: list[Any]) -> Any:
        """The object of a number or of a name."""
        if word == "handle":
            return self.objects[rest[0]]
        module, path = rest
        first, *attributes = path.split(".")
        value = self.given[first] if module == MODULE else getattr(importlib.import_module(module), first)
        for attribute in attributes:
            value = getattr(value, attribute)
        return value

    def run(self, source: str, name: str, given: bool) -> None:
        """Execute a cell; what given cells define is remembered, whatever a student calls the same."""
        filename = f"<{name}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        try:
            code = compile(source, filename, "exec")
        except SyntaxError:  # a notebook's magics, `%matplotlib inline`, are no Python: leave them out
            code = compile(re.sub(r"^([ \t]*)[%!].*$", r"\1pass", source, flags=re.MULTILINE), filename, "exec")
        before = dict(self.namespace)
        exec(code, self.namespace)
        if given:
            self.settle()
            self.given |= {key: v for key, v in self.namespace.items() if key not in before or before[key] is not v}

    def settle(self) -> None:
        """Once a given cell has imported the libraries: one thread, and seeds, so that another run gives the same."""
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        if torch and not self.settled:
            self.settled = True
            torch.set_num_threads(1)
            torch.manual_seed(0)
            numpy.random.seed(0) if numpy else None
            random.seed(0)

    def answer(self, op: str, of: Any = None, args: Any = (), kwargs: Any = None) -> Any:  # noqa: PLR0911
        """Do what a request asks for."""
        if op == "run":
            return self.run(*args)
        if op == "get":
            if of not in self.namespace:
                raise NameError(f"name {of!r} is not defined")
            return self.namespace[of]
        if op == "call":
            return of(*args, **kwargs)
        if op == "attribute":
            return getattr(of, *args)
        if op == "item":
            return of[args[0]]
        if op == "length":
            return len(of)
        if op == "iterate":
            return iter(of)
        if op == "next":
            try:
                return [next(of)]
            except StopIteration:
                return []
        if op == "data":
            return of
        raise ValueError(f"no such request: {op}")

    def reply(self, text: bytes, block: bytes) -> bytes:
        """The frame that answers a frame; errors are answers too."""
        message = json.loads(text)
        number = message.pop("id")
        try:
            request = {key: Decoder(block, self.decode_other).value(tree) for key, tree in message.items()}
            value = self.answer(**request)
            self.encoder = Encoder(stays_inside if request["op"] == "data" else self.encode_other)
            return frame({"id": number, "value": self.encoder.tree(value)}, self.encoder.chunks)
        except BaseException as error:
            return frame({"id": number, "error": described(error)}, [])


def stays_inside(value: Any) -> list[Any]:
    raise TypeError(f"a {type(value).__name__} cannot be compared from outside")


def described(error: BaseException) -> list[Any]:
    """Type, nearest built-in type, text, and the last line in a cell that took part."""
    builtin = next(kind.__name__ for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind)
    try:
        text = (error.msg if isinstance(error, SyntaxError) else str(error))[:500]
    except BaseException:
        text = ""
    cell, line, trace = "", 0, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename.startswith("<"):
            cell, line = trace.tb_frame.f_code.co_filename.strip("<>"), trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and (error.filename or "").startswith("<"):
        cell, line = str(error.filename).strip("<>"), error.lineno or 0
    return [type(error).__name__[:80], builtin, text, cell, line]


def main() -> None:
    """Serve until the pipe closes: requests come in at 0, replies leave at 1, which prints cannot reach."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    limits = json.loads(sys.argv[1])
    sys.path.insert(0, limits.pop("course"))
    confine(limits)
    server = Server()
    while head := requests.read(HEAD.size):
        text, block = HEAD.unpack(head)
        replies.write(server.reply(requests.read(text), requests.read(block)))
        replies.flush()


if __name__ == "__main__":
    main()
