"""Short ways to load and to fail, shared by the tests of the configuration. No tests here."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fleet.config import Config, ConfigError, Loaded, Problem, load


def loaded(
    text: str | None = None, env: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> Loaded:
    """What the three layers give together; the file is called f.yml."""
    return load(text, env or {}, flags or {}, source="f.yml")


def config(text: str | None = None, env: Mapping[str, str] | None = None) -> Config:
    """The configuration alone."""
    return loaded(text, env).config


def problems(
    text: str | None = None, env: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> list[Problem]:
    """The problems of a configuration that must have some."""
    with pytest.raises(ConfigError) as caught:
        loaded(text, env, flags)
    return caught.value.problems


def messages(
    text: str | None = None, env: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> dict[str, str]:
    """The problems as path -> message."""
    return {problem.path: problem.message for problem in problems(text, env, flags)}
