"""Sections about what watches the fleet: metrics, host figures, alerts, the dashboard, the AI status, traces."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from fleet.config.schema.types import (
    Bytes,
    Count,
    HttpUrl,
    Number,
    Says,
    Seconds,
    Secret,
    SecretUrl,
    Section,
    Share,
    Whole,
)

ModelText = Annotated[str, Field(max_length=256, pattern=r"^[!-~]*$"), Says("a model's name, or empty")]


class MetricsSection(Section):
    """What Prometheus reads."""

    models: Whole = Field(200, ge=1, le=10_000, description="Models with series of their own; the rest is `other`.")
    pairs: Whole = Field(
        400,
        ge=1,
        le=10_000,
        description="Pairs (server and model, endpoint and model) with their own series; the rest is `other`.",
    )
    callers: Whole = Field(
        50, ge=1, le=1000, description="API keys with series of their own, by name; the rest is `other`."
    )
    exemplars: bool = Field(True, description="Whether histograms carry the id of a recent request (OpenMetrics only).")


class HostSection(Section):
    """How the machine under the fleet is watched."""

    enabled: bool = Field(True, description="Whether CPU, memory, disk, GPU and power are sampled.")
    interval: Seconds = Field(5.0, description="Time between two samples, in seconds.")
    timeout: Seconds = Field(3.0, description="Longest time a sample may take, in seconds; late ones are dropped.")


class WebhookSection(Section):
    """Where alerts are sent."""

    url: SecretUrl = Field(
        SecretStr(""),
        description="Gets a POST per alert that fires or ends; empty = off. Never shown: it may be a key; or env:NAME.",
    )
    secret: Secret | None = Field(None, description="Signs each body (HMAC-SHA256), or env:NAME to take it from there.")
    severity: Literal["info", "warning", "critical"] = Field("warning", description="Least severity that is sent.")
    timeout: Seconds = Field(5.0, description="Longest time one delivery may take, in seconds.")
    attempts: Whole = Field(5, ge=1, le=20, description="Deliveries tried per alert, further and further apart.")


class AlertsSection(Section):
    """When the fleet complains."""

    enabled: bool = Field(True, description="Whether alerts are raised; the verdict is there in any case.")
    history: Whole = Field(500, ge=10, le=10_000, description="Alerts that are remembered after their end.")
    error_rate: Share = Field(0.05, description="Share of failed requests in 5 minutes that is too many.")
    error_requests: Count = Field(20, description="Requests in 5 minutes before that share counts.")
    queue_wait: Seconds = Field(30.0, description="Wait of the oldest request in line that is too long, in seconds.")
    slow_ratio: Annotated[Number, Field(ge=1.1, le=1000)] = Field(
        4.0, description="Times the fleet's median first-token time at which a server is slow."
    )
    slow_requests: Count = Field(20, description="Requests of a server in 15 minutes before that ratio counts.")
    first_token: Seconds = Field(5.0, description="95th percentile of the first-token time that is bad, in seconds.")
    stall_share: Share = Field(0.01, description="Share of streams that stall that is too many.")
    breaker_flaps: Count = Field(4, description="State changes of a breaker in 30 minutes that are too many.")
    thrash_loads: Count = Field(6, description="Loads of one model on one server in 30 minutes that are too many.")
    cpu: Share = Field(0.95, description="Share of the CPU in use that is too much.")
    memory: Share = Field(0.95, description="Share of the memory in use that is too much.")
    disk: Share = Field(0.9, description="Share of the disk in use that is too much.")
    vram: Share = Field(0.95, description="Share of the memory of a GPU of this machine that is too much.")
    drain: Seconds = Field(1800.0, description="How long a drain may take, in seconds.")
    webhook: WebhookSection = Field(WebhookSection(), description="Where alerts are sent.")


class DashboardSection(Section):
    """The live feed behind the dashboard."""

    max_clients: Whole = Field(100, ge=1, le=10_000, description="Live clients at one time; more are refused.")
    max_clients_per_address: Whole = Field(25, ge=1, le=10_000, description="Live clients of one address.")
    interval: Annotated[Number, Field(ge=0.2, le=60)] = Field(1.0, description="Time between two updates, in seconds.")
    message_bytes: Bytes = Field(64 * 2**10, description="Largest message a live client may send, in bytes.")


class AiStatusSection(Section):
    """A short text on the fleet's state, written by a model."""

    enabled: bool = Field(False, description="Whether a model writes it; else it is put together by rules.")
    model: ModelText = Field("", description="The (small) model that writes it; empty = rules.")
    interval: Seconds = Field(60.0, description="Time between two texts, in seconds.")
    timeout: Seconds = Field(10.0, description="Longest time the model may take, in seconds.")


class OtelSection(Section):
    """Traces, by OpenTelemetry; needs the `otel` extra installed."""

    endpoint: HttpUrl = Field("", description="OTLP/HTTP collector, such as http://127.0.0.1:4318; empty = off.")
    service_name: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        "ollama-fleet", description="Name of this service in traces."
    )
    sample_ratio: Share = Field(1.0, description="Share of requests traced, unless the caller has decided.")
