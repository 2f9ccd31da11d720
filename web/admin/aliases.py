"""Other addresses of what has one already: the reference serves these under the orchestrator's prefix too."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from quart import Response

from fleet.models import merged_catalog
from fleet.security.roles import Role
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.observability import prometheus
from web.http import responses
from web.ollama_api.version_and_list_routes import NO_VERSION

topic = RouteGroup("aliases", "Lists of Ollama's and the metrics, by their other addresses.")


class VersionAnswer(Struct):
    """What Ollama answers."""

    version: str


class ModelListAnswer(Struct):
    """In Ollama's words."""

    models: list[dict[str, Any]]


@topic.get(
    "/metrics/prometheus",
    "The same as `/metrics`.",
    role=Role.CLIENT,
    returns=str,
    media="text/plain",
)
async def metrics(asked: AdminRequest) -> Response | dict[str, Any]:
    return await prometheus.metrics(asked)


@topic.get("/version", "The same as `/api/version`.", role=Role.CLIENT)
async def version(asked: AdminRequest) -> VersionAnswer:
    return VersionAnswer(version=merged_catalog.version(asked.system.queries.catalogs(), NO_VERSION))


@topic.get("/tags", "The same as `/api/tags`.", role=Role.CLIENT, returns=ModelListAnswer)
async def tags(asked: AdminRequest) -> Response:
    return responses.raw(asked.context.tags.body())


@topic.get("/ps", "The same as `/api/ps`.", role=Role.CLIENT)
async def ps(asked: AdminRequest) -> ModelListAnswer:
    return ModelListAnswer(models=merged_catalog.ps(asked.system.queries.catalogs()))
