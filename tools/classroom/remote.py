"""Objects that live in the sandbox, made to look like ordinary ones to a test.

Only plain data ever reaches the tests. What is no data is a `Proxy`: its attributes, calls, items, length and
iteration go through the pipe, and a comparison fetches data first, so that nothing of a student's decides whether two
values are equal. There is no `__torch_function__` and no conversion that a student could answer for.
"""

import builtins
import math
import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tools.classroom.sandbox import Sandbox, SandboxFailure
from tools.classroom.server import MODULE, BadFrameError

MAX_ITEMS = 100_000


class CannotTravelError(TypeError):
    """A test hands over something that cannot go into the sandbox: a mistake of the set, not of the student."""


class Remote:
    """One sandbox as the tests see it: requests in, values and proxies out."""

    def __init__(self, sandbox: Sandbox, given: dict[str, Any]) -> None:
        self.sandbox, self.given = sandbox, given
        sandbox.handle = self._handle

    def ask(self, op: str, of: Any = None, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        """The value of one request within the time for a call."""
        seconds = self.sandbox.limits.call
        return self.sandbox.request(op, seconds, self.encode, of=of, args=args, kwargs=kwargs or {})

    def run(self, source: str, name: str, given: bool) -> None:
        """Execute a cell."""
        self.sandbox.request("run", self.sandbox.limits.cell, self.encode, args=(source, name, given))

    def there(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of a given cell inside: what `there` is while grading."""
        return self.ask("call", function, args, kwargs)

    def encode(self, value: Any) -> list[Any]:
        """Proxies travel as handles; functions, classes and objects of given cells and of modules by name."""
        if isinstance(value, Proxy | Record):
            owner, number = value._where_
            if owner is not self:
                raise SandboxFailure("an object of an earlier cell went with the process that had to be ended")
            return ["handle", number]
        for name, known in self.given.items():
            if known is value:
                return ["name", MODULE, name]
        module, path = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
        torch = sys.modules.get("torch")
        places = [sys.modules.get(str(module)), torch, torch and torch.nn.functional, math, operator, builtins]
        for place, name in [(place, name) for place in places for name in (path, getattr(value, "__name__", ""))]:
            found = place
            for part in name.split("."):
                found = getattr(found, part, None)
            if found is value and place is not None and place.__name__ != MODULE:
                return ["name", place.__name__, name]
        raise CannotTravelError(
            f"a {type(value).__name__} made in a test cannot go into the sandbox; make it in a function of a given "
            "cell and call that with `there`"
        )

    def _handle(self, word: str, rest: list[Any]) -> Any:
        if word not in ("handle", "record") or type(rest[0]) is not int or type(rest[1]) is not str:
            raise BadFrameError(f"a value of no known kind, {word[:20]!r}")
        if word == "handle":
            return Proxy(self, rest[0], rest[1][:80])
        number, name, fields, values = rest
        if len(fields) != len(values) or not all(type(field) is str and field.isidentifier() for field in fields):
            raise BadFrameError("a record whose names and values do not match")
        return Record(self, number, name[:80], dict(zip(fields, values, strict=True)))


class _Distant:
    """What proxies and records share: whatever is not here is asked for."""

    _where_: tuple[Remote, int]
    _kind_: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # protocols of numpy, copy and others get no answer from a student
        return self._ask_("attribute", name)

    def _ask_(self, op: str, *args: Any, **kwargs: Any) -> Any:
        return object.__getattribute__(self, "_where_")[0].ask(op, self, args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask_("call", *args, **kwargs)


class Record(tuple[Any, ...], _Distant):
    """A named tuple or frozen dataclass: its fields are here, its methods stay inside."""

    def __new__(cls, remote: Remote, number: int, kind: str, fields: dict[str, Any]) -> "Record":
        """The fields as a tuple, and by name."""
        record = tuple.__new__(cls, fields.values())
        record.__dict__.update({name: value for name, value in fields.items() if not name.startswith("_")})
        record.__dict__.update(_where_=(remote, number), _kind_=kind)
        return record


class Proxy(_Distant):
    """An object inside the sandbox."""

    def __init__(self, remote: Remote, number: int, kind: str) -> None:
        self._where_, self._kind_ = (remote, number), kind

    def _data_(self) -> Any:
        return self._ask_("data")

    def __getitem__(self, key: Any) -> Any:
        return self._ask_("item", key)

    def __len__(self) -> int:
        length = self._ask_("length")
        if type(length) is not int:
            raise TypeError("a length that is no whole number")
        return length

    def __iter__(self) -> Iterator[Any]:
        items = self._ask_("iterate")
        for _ in range(MAX_ITEMS):
            found = items._ask_("next")
            if type(found) is not list or len(found) != 1:
                return
            yield found[0]
        raise ValueError(f"more than {MAX_ITEMS:,} items")

    def __next__(self) -> Any:
        found = self._ask_("next")
        if type(found) is not list or len(found) != 1:
            raise StopIteration
        return found[0]

    def __bool__(self) -> bool:
        return bool(self._data_())

    def __repr__(self) -> str:
        return f"<{self._kind_} in the sandbox>"

    __hash__ = None  # type: ignore[assignment]


def _compare(name: str) -> Callable[[Proxy, Any], Any]:
    def method(self: Proxy, other: Any) -> Any:
        return getattr(operator, name)(self._data_(), other._data_() if isinstance(other, Proxy) else other)

    return method


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Proxy, f"__{_name}__", _compare(_name))
