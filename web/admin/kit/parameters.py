"""What a call of the admin API says: its query and its body, read strictly, every problem named by its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel
from quart import request

from fleet.common.errors import BadRequest

Body = TypeVar("Body", bound=BaseModel)

_YES: Final = frozenset(("", "true", "1", "yes", "on"))
_NO: Final = frozenset(("false", "0", "no", "off"))


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
    """The declared parameters of the running request, in either spelling (`dry_run` and `dryRun` mean the same).

    Raises BadRequest; what is not declared is ignored.
    """
    given = request.args
    return {each.name: _value(each, given.get(each.name, given.get(to_camel(each.name)))) for each in params}


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
        word = text.lower()
        if word not in _YES and word not in _NO:  # a typing error must not cut anybody off
            raise BadRequest(f"{param.name} must be true or false")
        return word in _YES
    try:
        value = param.kind(text)
    except ValueError:
        raise BadRequest(f"{param.name} must be a {'whole ' if param.kind is int else ''}number") from None
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
        raise BadRequest(f"{param.name} must {_bounds(param)}")


def _bounds(param: Param) -> str:
    least, most = (None if bound is None else f"{bound:.12g}" for bound in (param.least, param.most))
    if most is None:
        return f"be at least {least}"
    return f"be at most {most}" if least is None else f"lie between {least} and {most}"
