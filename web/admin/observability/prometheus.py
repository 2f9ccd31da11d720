"""What Prometheus scrapes, on every port."""

from __future__ import annotations

from quart import Response, request

from fleet.security.roles import Role
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.http import responses
from web.monitoring.exposition import content_type_of, wants_gzip

topic = RouteGroup("prometheus", "For Prometheus.", root="")


@topic.get(
    "/metrics",
    "All metrics, as text or (by Accept) in OpenMetrics, compressed if wanted. See docs/metrics.md.",
    role=Role.CLIENT,
    returns=str,
    media="text/plain",
)
async def metrics(asked: AdminRequest) -> Response:
    content_type = content_type_of(",".join(request.headers.getlist("Accept")))
    zipped = wants_gzip(",".join(request.headers.getlist("Accept-Encoding")))
    body = await asked.context.exposition.latest(asked.system, content_type, zipped=zipped)
    response = responses.raw(body, content_type)
    if zipped:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept, Accept-Encoding"
    response.headers["Cache-Control"] = "no-store"
    return response
