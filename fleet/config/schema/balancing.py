"""Sections about how work is spread over the servers: lines, scores, health, retries, breakers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from fleet.config.schema.problems import Conflicts
from fleet.config.schema.types import Count, Id, Milliseconds, Seconds, Section, Share, Weight, Whole


def _underscored(value: object) -> object:
    """`round-robin` is how the orchestrator spells its algorithms."""
    return value.replace("-", "_") if isinstance(value, str) else value


Policy = Annotated[
    Literal["weighted", "expected_completion", "least_connections", "fastest_response", "round_robin", "random"],
    BeforeValidator(_underscored),
]


class QueueSection(Section):
    """The waiting lines."""

    max_size: Whole = Field(1000, ge=0, le=1_000_000, description="Requests that may wait at one time; 0 = none.")
    ageing_seconds: Seconds = Field(
        30.0, description="A waiting request gains one priority level per this many seconds."
    )
    no_server_grace: Seconds = Field(
        2.0, description="How long a request waits for a server to come back when none is usable, in seconds."
    )


class Weights(Section):
    """How much each score counts when a server is chosen; only their proportions matter."""

    latency: Weight = Field(0.2, description="Weight of short answer times.")
    success_rate: Weight = Field(0.2, description="Weight of the share of successes.")
    load: Weight = Field(0.2, description="Weight of few requests in flight.")
    capacity: Weight = Field(0.05, description="Weight of free slots.")
    circuit_breaker: Weight = Field(0.15, description="Weight of a breaker that is closed; half open, it gets a fifth.")
    residency: Weight = Field(0.3, description="Weight of having the model in memory already.")
    throughput: Weight = Field(0.1, description="Weight of tokens per second.")
    priority: Weight = Field(0.05, description="Weight of the server's own priority.")

    @model_validator(mode="after")
    def _one_counts(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("are all 0: at least one must be above 0")
        return self


class LoadBalancerSection(Section):
    """Which server gets a request."""

    policy: Policy = Field("weighted", description="How a server is chosen; hyphens are accepted too.")
    weights: Weights = Field(Weights(), description="Weights of the weighted policy.")
    candidates: Whole = Field(16, ge=1, le=1000, description="Ready servers scored per choice.")
    decisions: Whole = Field(256, ge=0, le=10_000, description="Recent choices remembered with their reasons.")


class HealthSection(Section):
    """How the servers are watched."""

    interval: Seconds = Field(10.0, description="Time between two rounds of probes, in seconds.")
    jitter: Share = Field(0.2, le=0.9, description="Share of the interval by which each round varies.")
    tags_timeout: Seconds = Field(5.0, description="Deadline of /api/tags, in seconds.")
    ps_timeout: Seconds = Field(5.0, description="Deadline of /api/ps, in seconds.")
    version_timeout: Seconds = Field(
        5.0,
        description="Deadline of /api/version, in seconds; half a second after the others once a version is known.",
    )
    failures: Whole = Field(2, ge=1, le=100, description="Failed rounds in a row that make a server unhealthy.")
    max_backoff: Seconds = Field(60.0, description="Longest time between probes of an unhealthy server, in seconds.")


class RetrySection(Section):
    """When a request may try another server. A retry never follows the first byte."""

    max_attempts: Whole = Field(3, ge=1, le=10, description="Attempts per request, the first one included.")
    budget_ratio: Share = Field(
        0.5, description="Retries per 10 s, as a share of the requests that began in them or are open now."
    )
    budget_floor: Whole = Field(10, ge=0, le=100_000, description="Retries per 10 s that are allowed on top.")


class CircuitBreakerSection(Section):
    """One breaker per model and server. Times in milliseconds, as the orchestrator's reference has them."""

    base_failure_threshold: Whole = Field(3, ge=1, le=1000, description="Failures in a row that open a breaker.")
    min_failure_threshold: Whole = Field(2, ge=1, le=1000, description="Lowest value the adaptive threshold takes.")
    max_failure_threshold: Whole = Field(10, ge=1, le=1000, description="Highest value the adaptive threshold takes.")
    adaptive: bool = Field(
        True,
        description="Whether a run of mostly crashes lowers the threshold by 1, of transient failures raises it by 2.",
    )
    open_timeout: Milliseconds = Field(120_000, description="How long a breaker stays open, in milliseconds.")
    open_jitter: Share = Field(0.1, description="Share of the open time by which it varies.")
    half_open_timeout: Milliseconds = Field(
        300_000, description="How long trials may be silent until the breaker opens again, in milliseconds."
    )
    half_open_max_requests: Whole = Field(3, ge=1, le=1000, description="Requests at one time while half open.")
    recovery_success_threshold: Whole = Field(5, ge=1, le=1000, description="Successes that close a breaker again.")
    active_test_timeout: Milliseconds = Field(300_000, description="Deadline of a recovery test, in milliseconds.")
    error_rate_threshold: Share = Field(
        0.3, ge=0.01, description="Share of failures in the window that opens a breaker."
    )
    error_rate_window: Milliseconds = Field(60_000, description="Length of the window, in milliseconds.")
    error_rate_min_requests: Count = Field(10, description="Requests in the window before the rate counts.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, base, high = self.min_failure_threshold, self.base_failure_threshold, self.max_failure_threshold
        if self.adaptive and not low <= base <= high:
            what = f"is {base}, but must lie between min_failure_threshold ({low}) and max_failure_threshold ({high})"
            raise Conflicts([("base_failure_threshold", what)])
        return self


class PlacementSection(Section):
    """Where models and blobs go."""

    builder: Id | None = Field(None, description="Id of the server that takes blobs and creates models; none = chosen.")
    pull_copies: Whole = Field(1, ge=1, le=1000, description="Servers that a pull fills.")
