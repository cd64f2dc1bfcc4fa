"""Typed run configurations to JSON and back.

A configuration is a frozen dataclass whose fields are numbers, strings, booleans, paths, tuples,
literals, other such dataclasses, or unions of these. Values are checked when they are read back, so
that a file edited by hand fails with the name of the field.
"""

from __future__ import annotations

import dataclasses
import functools
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from fusewire.errors import InputError

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
Config = TypeVar("Config")

_LARGEST_INTEGER = 2**63 - 1  # what NumPy and PyTorch take


def config_to_json(value: object) -> JSON:
    """Turns a configuration into what `json.dump` accepts; field names become keys.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Shape:
        ...     sizes: tuple[int, ...]
        >>> config_to_json(Shape(sizes=(1, 28, 28)))
        {'sizes': [1, 28, 28]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: config_to_json(getattr(value, field.name)) for field in fields}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [config_to_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a configuration cannot hold a {type(value).__name__}")


def config_from_json(kind: type[Config], value: JSON, where: str = "config") -> Config:
    """Builds the dataclass `kind` from JSON, checking names and types.

    Args:
        kind: the dataclass to build.
        value: what `config_to_json` gave.
        where: how error messages call this value.

    Returns:
        The configuration.

    Raises:
        InputError: a field is missing, unknown or of the wrong type.
    """
    return typing.cast(Config, _decode(kind, value, where))


def require_declared(config: object) -> None:
    """Refuses values that fields are not declared to hold: names, whole numbers, dataclasses.

    What Python's types promise, nobody checks where a configuration is written in Python.

    Args:
        config: the dataclass, as its `__post_init__` finds it.

    Raises:
        InputError: a name is none of a literal's, a number is not whole, or a value is of none of
            the dataclasses; the field is named.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Shape:
        ...     kind: typing.Literal["round", "square"]
        >>> require_declared(Shape("flat"))
        Traceback (most recent call last):
        fusewire.errors.InputError: kind must be 'round' or 'square', got 'flat'
    """
    kind: Any = type(config)
    for name, expected in _hints_of(kind).items():
        require_like(expected, **{name: getattr(config, name)})


def require_like(expected: Any, **values: object) -> None:
    """Refuses values of another type than the one they are declared with; see `require_declared`.

    Args:
        expected: a type such as `Literal["round", "square"]` or `int | None`.
        values: by name.
    """
    for name, value in values.items():
        if wanted := _unlike(expected, value):
            raise InputError(f"{name} must be {wanted}, got {value!r}")


@functools.cache
def _hints_of(kind: Any) -> Mapping[str, Any]:
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: hint for name, hint in hints.items() if name in names}


def _unlike(expected: Any, value: object) -> str | None:
    """What the value should have been; None where it is so, or the type is none of ours."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Literal and value not in arguments:
        *others, last = map(repr, arguments)
        return f"{', '.join(others)} or {last}" if others else last
    if origin in (typing.Union, types.UnionType):
        wanted = [_unlike(alternative, value) for alternative in arguments]
        return None if None in wanted else " or ".join(filter(None, wanted))
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return "a tuple"
        kinds = arguments[:1] * len(value) if Ellipsis in arguments else arguments
        if len(kinds) != len(value):
            return f"a tuple of {len(kinds)}"
        return next(filter(None, map(_unlike, kinds, value)), None)
    if dataclasses.is_dataclass(expected) and not isinstance(value, typing.cast(type, expected)):
        return typing.cast(type, expected).__name__
    if expected is type(None) and value is not None:
        return "None"
    if expected is int and not isinstance(value, numbers.Integral):
        return "a whole number"
    return None


def _decode(expected: Any, value: JSON, where: str) -> object:
    origin = typing.get_origin(expected)
    arguments = typing.get_args(expected)
    if dataclasses.is_dataclass(expected):
        return _decode_dataclass(typing.cast(type, expected), value, where)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(arguments, value, where)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise _mismatch(where, f"one of {', '.join(map(repr, arguments))}", value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _mismatch(where, "a list", value)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(arguments) != len(value):
            raise _mismatch(where, f"a list of {len(arguments)} values", value)
        pairs = zip(arguments, value, strict=True)
        return tuple(_decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(pairs))
    if expected is Path and isinstance(value, str):
        return Path(value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if expected is type(None):
        if value is None:
            return None
    elif expected is int and type(value) is int and abs(value) > _LARGEST_INTEGER:
        raise _mismatch(where, "an integer of 64 bits", value)
    elif expected in (bool, int, float, str) and type(value) is expected:
        return value
    raise _mismatch(where, getattr(expected, "__name__", str(expected)), value)


def _decode_dataclass(expected: type, value: JSON, where: str) -> object:
    if not isinstance(value, Mapping):
        raise _mismatch(where, "an object", value)
    hints = typing.get_type_hints(expected)
    fields = {field.name: field for field in dataclasses.fields(expected)}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise InputError(f"{where} has unknown fields: {', '.join(unknown)}")
    missing = [
        name
        for name, field in fields.items()
        if name not in value
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{where} lacks the fields: {', '.join(missing)}")
    members = {name: _decode(hints[name], value[name], f"{where}.{name}") for name in value}
    return expected(**members)


def _decode_union(alternatives: tuple[Any, ...], value: JSON, where: str) -> object:
    failures = []
    for alternative in alternatives:
        try:
            return _decode(alternative, value, where)
        except InputError as failure:
            failures.append(str(failure))
    raise InputError("; or ".join(dict.fromkeys(failures)))


def _mismatch(where: str, expected: str, value: JSON) -> InputError:
    return InputError(f"{where}: expected {expected}, got {value!r}")
