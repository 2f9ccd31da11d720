"""Asking for the configuration, and reading what is answered."""

from __future__ import annotations

from typing import Any

from tests.kit.clients.admin import ask


async def get(here: Any, path: str = "") -> Any:
    return await ask(here, "GET", f"/config{path}")


async def post(here: Any, path: str = "", status: int = 200, **body: Any) -> Any:
    return await ask(here, "POST", f"/config{path}", body, status=status)


async def patch(here: Any, section: str, status: int = 200, **body: Any) -> Any:
    return await ask(here, "PATCH", f"/config/{section}", body, status=status)


def told(answer: Any) -> dict[str, tuple[Any, Any, str]]:
    return {each["path"]: (each["before"], each["after"], each["effect"]) for each in answer["changed"]}


def of_paths(answer: Any) -> dict[str, str]:
    return {each["path"]: each["message"] for each in answer["problems"]}
