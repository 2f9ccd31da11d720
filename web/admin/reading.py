"""What a call of the admin API says: its query and its body, read strictly, every problem named by its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel
from quart import request

from fleet.errors import BadRequest

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Param:
    """One query parameter. `kind` is int, float, str or bool; `words` are the only ones allowed, if given."""

    name: str
    kind: type
    default: Any
    about: str
    least: float | None = None
    most: float | None = None
    words: tuple[str, ...] = ()


def query_of(params: Sequence[Param]) -> dict[str, Any]:
    """The declared parameters of the running request. Raises BadRequest; what is not declared is ignored."""
    return {param.name: _value(param, request.args.get(param.name)) for param in params}


def body_of(model: type[Body], given: Mapping[str, object]) -> Body:
    """The body, checked. Raises BadRequest with every problem, by path."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = [_problem(each) for each in error.errors(include_url=False, include_input=False)]
    raise BadRequest("; ".join(problems[:5]), details="\n".join(problems))


def _problem(error: Any) -> str:
    where = ".".join(to_camel(step) if isinstance(step, str) else str(step) for step in error["loc"])
    return f"{where}: {error['msg']}" if where else str(error["msg"])


def _value(param: Param, text: str | None) -> Any:
    if text is None:
        return param.default
    if param.kind is bool:
        return text.lower() not in ("false", "0", "no", "off")
    try:
        value = param.kind(text)
    except ValueError:
        raise BadRequest(f"{param.name} must be a number") from None
    _check(param, value)
    return value


def _check(param: Param, value: Any) -> None:
    if param.words and value not in param.words:
        raise BadRequest(f"{param.name} must be one of {', '.join(param.words)}")
    if isinstance(value, str):
        if len(value) > 256:
            raise BadRequest(f"{param.name} is longer than 256 characters")
        return
    below = param.least is not None and not value >= param.least
    above = param.most is not None and not value <= param.most
    if below or above:
        raise BadRequest(f"{param.name} must lie between {param.least:g} and {param.most:g}")
