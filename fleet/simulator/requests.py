"""From what a client asked for to `Work`: options checked as Ollama checks them, tokens decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleet.simulator.files import ModelFile
from fleet.simulator.profile import Profile
from fleet.simulator.text import answer
from fleet.simulator.work import RunnerOptions, Work, prompt_size

_INTEGERS: Final = (
    "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict",
    "num_predict", "num_keep", "seed", "top_k", "repeat_last_n",
)  # fmt: skip
_FLOATS: Final = ("temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty")
_LONGEST: Final = 100_000
"""Tokens of one answer, whoever asks for more."""
_BOOLEANS: Final = ("use_mmap",)


class BadOption(ValueError):
    """An option of the wrong type; Ollama answers 500, though it is the client's fault."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for text. An empty prompt only loads the model."""

    prompt: str = ""
    options: Mapping[str, Any] | None = None
    keep_alive: float = 300.0
    shift: bool = True
    as_json: bool = False
    held: bool = False


def check_options(options: Mapping[str, Any]) -> None:
    """Types of known options; unknown ones are ignored, as Ollama does. Raises `BadOption`."""
    for key, value in options.items():
        if value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key in _INTEGERS and not (number and value == int(value)):
            raise BadOption(f'option "{key}" must be of type integer')
        if key in _FLOATS and not number:
            raise BadOption(f'option "{key}" must be of type float32')
        if key == "stop" and not isinstance(value, list):
            raise BadOption('option "stop" must be of type array')
        if key in _BOOLEANS and not isinstance(value, bool):
            raise BadOption(f'option "{key}" must be of type boolean')


def runner_options(file: ModelFile, options: Mapping[str, Any], profile: Profile, *, shift: bool) -> RunnerOptions:
    """What the runner must have been loaded with; the context is clamped to what the model was trained for."""
    default = RunnerOptions()
    return RunnerOptions(
        num_ctx=max(4, min(int(options.get("num_ctx") or profile.num_ctx), file.context_length)),
        num_batch=int(options.get("num_batch") or default.num_batch),
        num_gpu=int(options.get("num_gpu") or default.num_gpu),
        main_gpu=int(options.get("main_gpu") or default.main_gpu),
        use_mmap=options.get("use_mmap"),
        num_thread=int(options.get("num_thread") or default.num_thread),
        draft_num_predict=int(options.get("draft_num_predict") or default.draft_num_predict),
        shift=shift,
    )


def work_for(file: ModelFile, profile: Profile, ask: Ask) -> Work:
    """The work of answering. `num_predict` above zero is met exactly and ends with `length`. Raises `BadOption`."""
    options = {**file.parameters, **(ask.options or {})}
    check_options(options)
    limit = min(int(options.get("num_predict") or 0), _LONGEST)
    wanted = limit if limit > 0 else None
    seed = int(options.get("seed") or 0)
    tokens = answer(file.weights, ask.prompt, seed, wanted, as_json=ask.as_json) if ask.prompt else ()
    return Work(
        file=file,
        options=runner_options(file, options, profile, shift=ask.shift),
        keep_alive=ask.keep_alive,
        prompt=ask.prompt,
        prompt_tokens=prompt_size(ask.prompt),
        tokens=tokens,
        length_limited=wanted is not None and len(tokens) >= wanted,
        held=ask.held,
        automatic=not options.get("num_ctx"),
        poison=bool(profile.poison) and profile.poison in ask.prompt,
    )


def embedding_work(file: ModelFile, profile: Profile, texts: list[str], ask: Ask) -> Work:
    """The work of embedding `texts` one after the other; none at all only loads the model. Raises `BadOption`."""
    options = {**file.parameters, **(ask.options or {})}
    check_options(options)
    return Work(
        file=file,
        options=runner_options(file, options, profile, shift=True),
        keep_alive=ask.keep_alive,
        prompt="\0".join(texts),
        prompt_tokens=sum(prompt_size(text) for text in texts),
        automatic=not options.get("num_ctx"),
    )
