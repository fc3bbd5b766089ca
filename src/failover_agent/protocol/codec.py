"""What the core knows, hears, orders and keeps <-> JSON values, by its type hints: for the journal.

An object says under "is" which dataclass it is, wherever that is not plain from the place; what has
its default is left out. A moment without an end is "inf", a set is sorted. `decode(encode(x))`
equals x. What does not fit raises CodecError: a journal may be damaged, or of another version.

The functions for a type are made once, on import: what a journal line costs is the walk.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin

from failover_agent.core.effects import Effect
from failover_agent.core.events import Event
from failover_agent.core.managed import Containers, ContainerView
from failover_agent.core.policy import Policy
from failover_agent.core.state import Durable, State

T = TypeVar("T")

TAG = "is"
INFINITE = {"inf": math.inf, "-inf": -math.inf}


class CodecError(ValueError):
    """`str(error)` names the place, from the outside in, and what does not fit."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Codec:
    """Both directions for one type."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _plain(kind: type) -> _Codec:
    def decode(value: Any) -> Any:
        if type(value) is not kind:
            raise CodecError(f"{value!r:.80} is no {kind.__name__}")
        return value

    return _Codec(lambda value: value, decode)


def _float() -> _Codec:
    def encode(value: float) -> Any:
        if math.isfinite(value):
            return value
        assert not math.isnan(value), "no moment and no length is NaN"
        return "inf" if value > 0 else "-inf"

    def decode(value: Any) -> float:
        if isinstance(value, str) and value in INFINITE:
            return INFINITE[value]
        if type(value) is float or type(value) is int:
            return float(value)
        raise CodecError(f"{value!r:.80} is no number")

    return _Codec(encode, decode)


def _enum(kind: type[Enum]) -> _Codec:
    def decode(value: Any) -> Enum:
        try:
            return kind(value)
        except ValueError:
            raise CodecError(f"{value!r:.80} is no {kind.__name__}") from None

    return _Codec(lambda value: value.value, decode)


def _optional(inner: _Codec) -> _Codec:
    return _Codec(
        lambda value: None if value is None else inner.encode(value),
        lambda value: None if value is None else inner.decode(value),
    )


def _union(kinds: tuple[type, ...]) -> _Codec:
    codecs = {kind: _codec(kind) for kind in kinds}
    named = {kind.__name__: codec for kind, codec in codecs.items()}
    assert len(named) == len(kinds)

    def encode(value: Any) -> Any:
        kind = type(value)
        return {TAG: kind.__name__, **codecs[kind].encode(value)}

    def decode(value: Any) -> Any:
        fields = dict(_object(value))
        tag = fields.pop(TAG, None)
        if not isinstance(tag, str) or tag not in named:
            raise CodecError(f"{tag!r:.80} is none of {', '.join(named)}")
        return named[tag].decode(fields)

    return _Codec(encode, decode)


def _dataclass(kind: type) -> _Codec:
    hints = typing.get_type_hints(kind)
    fields = [
        (field.name, _codec(hints[field.name]), _default(field))
        for field in dataclasses.fields(kind)
    ]
    codecs = {name: codec for name, codec, _ in fields}
    needed = {name for name, _, default in fields if default is dataclasses.MISSING}

    def encode(value: Any) -> Any:
        return {
            name: codec.encode(content)
            for name, codec, default in fields
            if (content := getattr(value, name)) is not default and content != default
        }

    def decode(value: Any) -> Any:
        found = _object(value)
        if missing := needed - found.keys():
            raise CodecError(f"{kind.__name__}: no {min(missing)}")
        if unknown := found.keys() - codecs.keys():
            raise CodecError(f"{kind.__name__}: what is {min(unknown)!r:.80}?")
        return kind(**{name: _within(name, codecs[name], item) for name, item in found.items()})

    return _Codec(encode, decode)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _tuple(items: tuple[Any, ...]) -> _Codec:
    if len(items) == 2 and items[1] is Ellipsis:
        inner = _codec(items[0])

        def decode_all(value: Any) -> Any:
            return tuple(_within(place, inner, item) for place, item in enumerate(_array(value)))

        return _Codec(lambda value: [inner.encode(item) for item in value], decode_all)
    codecs = [_codec(item) for item in items]

    def encode(value: Any) -> Any:
        return [codec.encode(item) for codec, item in zip(codecs, value, strict=True)]

    def decode(value: Any) -> Any:
        found = _array(value)
        if len(found) != len(codecs):
            raise CodecError(f"{len(found)} items instead of {len(codecs)}")
        return tuple(
            _within(place, codec, item)
            for place, (codec, item) in enumerate(zip(codecs, found, strict=True))
        )

    return _Codec(encode, decode)


def _frozenset(inner: _Codec) -> _Codec:
    return _Codec(
        lambda value: sorted(inner.encode(item) for item in value),
        lambda value: frozenset(inner.decode(item) for item in _array(value)),
    )


def _mapping(keys: _Codec, values: _Codec) -> _Codec:
    def encode(value: Any) -> Any:
        return {keys.encode(key): values.encode(item) for key, item in value.items()}

    def decode(value: Any) -> Any:
        return {
            keys.decode(key): _within(key, values, item) for key, item in _object(value).items()
        }

    return _Codec(encode, decode)


def _containers() -> _Codec:
    """As an object by name. One that is filed under another name than its own would be lost."""
    views = _mapping(_codec(str), _codec(ContainerView))

    def decode(value: Any) -> Containers:
        found = views.decode(value)
        if wrong := [name for name, view in found.items() if view.name != name]:
            raise CodecError(f"{wrong[0]!r:.80} is the name of another container")
        return Containers(found.values())

    return _Codec(views.encode, decode)


def _codec(kind: Any) -> _Codec:
    """The codec of a type as it stands in a hint. TypeError for one that the core does not use."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        others = tuple(argument for argument in arguments if argument is not type(None))
        inner = _codec(others[0]) if len(others) == 1 else _union(others)
        return inner if len(others) == len(arguments) else _optional(inner)
    if origin is tuple:
        return _tuple(arguments)
    if origin is frozenset:
        return _frozenset(_codec(arguments[0]))
    if kind is Containers:
        return _containers()
    if origin is Mapping:
        return _mapping(_codec(arguments[0]), _codec(arguments[1]))
    if kind is float:
        return _float()
    if kind in (bool, int, str):
        return _plain(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    raise TypeError(f"no codec for {kind!r}")


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CodecError(f"{value!r:.80} is no object")
    return value


def _array(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise CodecError(f"{value!r:.80} is no array")
    return value


def _within(place: object, codec: _Codec, value: Any) -> Any:
    try:
        return codec.decode(value)
    except CodecError as error:
        raise CodecError(f"{place}: {error}") from None


_ANY = _union((State, Policy, Durable, *get_args(Event), *get_args(Effect)))

Encoded = dict[str, Any]
Thing = State | Policy | Durable | Event | Effect


def encode(thing: Thing) -> Encoded:
    """As a JSON object; from any thread."""
    encoded: Encoded = _ANY.encode(thing)
    return encoded


def decode(kind: type[T], value: object) -> T:
    """The State, Policy, Durable, event or effect that `value` spells. Raises CodecError."""
    decoded = _ANY.decode(value)
    if not isinstance(decoded, kind):
        raise CodecError(f"{type(decoded).__name__} is no {kind.__name__}")
    return decoded


def decode_event(value: object) -> Event:
    """The event that `value` spells, of whichever kind. Raises CodecError."""
    decoded = _ANY.decode(value)
    if not isinstance(decoded, Event):
        raise CodecError(f"{type(decoded).__name__} is no event")
    return decoded


def decode_effect(value: object) -> Effect:
    """The effect that `value` spells, of whichever kind. Raises CodecError."""
    decoded = _ANY.decode(value)
    if not isinstance(decoded, Effect):
        raise CodecError(f"{type(decoded).__name__} is no effect")
    return decoded
