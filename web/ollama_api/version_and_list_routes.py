"""What the fleet answers by itself, from what its servers last reported: never waits for a backend."""

from __future__ import annotations

from typing import Final

from quart import Blueprint, Response

from actors.system import System
from fleet.common.errors import ModelNotFound
from fleet.common.model_names import canonical
from fleet.models import merged_catalog
from fleet.protocol.dialects import missing_model_text
from web.http import responses
from web.http.ports import Face
from web.ollama_api import merged_lists

_V1_JSON: Final = "application/json"
NO_VERSION: Final = "0.0.0"
"""The version of a fleet whose servers tell none."""


def blueprint(system: System, face: Face = Face.PROXY) -> Blueprint:
    """Root page, version, status, and the merged inventories. The dashboard has a page and a status of its own."""
    routes = Blueprint("local", __name__)
    listed, listed_v1 = merged_lists.tags(system), merged_lists.v1_models(system)
    if face is not Face.DASHBOARD:
        _greet(routes)

    @routes.get("/api/version")
    async def version() -> Response:
        return responses.json({"version": merged_catalog.version(system.queries.catalogs(), NO_VERSION)})

    @routes.get("/api/tags")
    async def tags() -> Response:
        return responses.raw(listed.body())

    @routes.get("/api/ps")
    async def ps() -> Response:
        return responses.json({"models": merged_catalog.ps(system.queries.catalogs())})

    @routes.get("/v1/models")
    async def models() -> Response:
        return responses.raw(listed_v1.body(), _V1_JSON)

    @routes.get("/v1/models/<model>")
    async def one(model: str) -> Response:
        await system.find(canonical(model))
        row = merged_catalog.v1_model(model, system.queries.catalogs())
        if row is None:
            raise ModelNotFound(missing_model_text("/v1/models", model))
        return responses.json(row, content_type=_V1_JSON)

    return routes


def _greet(routes: Blueprint) -> None:
    """What the dashboard's port says in words of its own."""

    @routes.get("/")
    async def root() -> Response:
        return responses.text("Ollama is running")

    @routes.get("/api/status")
    async def status() -> Response:
        return responses.json({"cloud": {"disabled": True, "source": "env"}})
