"""Sections about what clients meet: listeners, deadlines, limits, keys, logs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, model_validator

from fleet.config.schema.problems import Conflicts
from fleet.config.schema.types import Bytes, Count, Port, Says, Seconds, Section, Whole
from fleet.config.schema.urls import is_host
from fleet.security.client_address import network_of, spelled


def _host(value: str) -> str:
    if not is_host(value):
        raise ValueError("must be an address or a host name alone, such as 127.0.0.1; ports have keys of their own")
    return value


def _network(value: str) -> str:
    return spelled(network_of(value))


def possible_path(value: str) -> str:
    """No file system has a name of more than 255 bytes: such a file can be neither there nor made."""
    if any(len(name.encode("utf-8", "surrogatepass")) > 255 for name in value.split("/")):
        raise ValueError("must be a path whose names have at most 255 bytes each")
    return value


def _level(value: object) -> object:
    """Any case; `warn` is what the orchestrator's reference says."""
    return {"WARN": "WARNING"}.get(value.upper(), value.upper()) if isinstance(value, str) else value


FieldName = Annotated[
    str,
    Field(max_length=64, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"),
    Says("the name of a header field, such as X-My-Header"),
]
Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_level)]
Origin = Annotated[
    str,
    Field(max_length=255, pattern=r"^(\*|[A-Za-z][A-Za-z0-9+.-]*://[!-.0-~]+)$"),
    Says("* or an origin such as https://app.example, without a path or a trailing slash"),
]
HostName = Annotated[
    str,
    Field(max_length=253, pattern=r"^(\*|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?)$"),
    Says("* or a host name alone, such as fleet.example, without a port"),
]
FilePath = Annotated[
    str,
    # Control characters and line ends would reach the terminal and the logs with every message about the file.
    Field(max_length=4096, pattern=r"^[^\x00-\x1F\x7F-\x9F\u2028\u2029]*$"),
    AfterValidator(possible_path),
    Says("a path of at most 4096 characters, none of its names longer than 255 bytes, without control characters"),
]
Network = Annotated[
    str,
    Field(max_length=64),
    AfterValidator(_network),
    Says("an IP address or a network, such as 10.0.0.7, 10.0.0.0/8 or fd00::/8, not a host name"),
]
ANY_PORT = "0 = any free port"


class TlsSection(Section):
    """TLS on every listener; both files or none."""

    certificate: FilePath = Field(
        "", description="Path of the PEM file with the certificate chain, the server's own certificate first."
    )
    key: FilePath = Field("", description="Path of the PEM file with the certificate's private key, without password.")

    @property
    def enabled(self) -> bool:
        """Whether the listeners speak TLS."""
        return bool(self.certificate and self.key)

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        given = {"certificate": self.certificate, "key": self.key}
        missing = [name for name in given if not given[name]]
        if len(missing) == 1:
            other = "key" if missing == ["certificate"] else "certificate"
            raise Conflicts([(missing[0], f"is missing: server.tls.{other} is set, and TLS needs both or none")])
        return self


class ServerSection(Section):
    """Where the fleet listens."""

    host: Annotated[str, AfterValidator(_host)] = Field(
        "127.0.0.1", description="Address to listen on; other than loopback needs API keys or an explicit permission."
    )
    proxy_port: Port = Field(11435, description=f"Port of the Ollama-compatible proxy; {ANY_PORT}.")
    orchestrator_port: Port = Field(5100, description=f"Second port of the same application; {ANY_PORT}.")
    metrics_port: Port = Field(8001, description=f"Port of the metrics API; {ANY_PORT}.")
    dashboard_port: Port = Field(
        3001, description=f"Third port of the same application, for the dashboard; {ANY_PORT}."
    )
    request_timeout: Seconds | None = Field(
        None, description="Longest time for a whole request, in seconds; when set it overrides timeouts.total."
    )
    tls: TlsSection = Field(TlsSection(), description="TLS on every listener; both files or none.")
    trusted_proxies: tuple[Network, ...] = Field(
        (), max_length=100, description="Reverse proxies whose X-Forwarded-For is believed: addresses or networks."
    )


class TimeoutsSection(Section):
    """Deadlines of one request, in seconds."""

    head: Seconds = Field(
        30.0, description="Until a TLS handshake, and then a request's head, is complete, in seconds; else 408."
    )
    keep_alive: Seconds = Field(
        180.0,
        description="How long an idle client connection is kept, in seconds; Go clients reuse one for 90 seconds.",
    )
    connect: Seconds = Field(5.0, description="Until a connection to a server stands, in seconds.")
    queue: Seconds = Field(300.0, description="Longest wait in line for a free slot, in seconds.")
    first_byte: Seconds = Field(
        600.0,
        validation_alias=AliasChoices("firstByte", "load"),
        description="Until the first byte of streams, embeddings and show, in seconds; loading a model counts, "
        "hence also accepted as `load`.",
    )
    idle: Seconds = Field(120.0, description="Longest silence of a running answer, in seconds.")
    body_idle: Seconds = Field(60.0, description="Longest silence of a client that sends its request body, in seconds.")
    write: Seconds = Field(60.0, description="How long a client may stop reading its answer, in seconds.")
    total: Seconds = Field(3600.0, description="The whole request over all attempts, in seconds.")


class LimitsSection(Section):
    """How much a client may send."""

    body_bytes: Bytes = Field(100 * 2**20, description="Largest request body (images are big), in bytes.")
    header_bytes: Bytes = Field(64 * 2**10, le=2**24, description="Largest request head, in bytes.")
    # Browsers send more than a dozen: with fewer nobody could so much as take the limit back.
    headers: Whole = Field(100, ge=16, le=1_000_000, description="Most header fields of one request; else 431.")
    connections: Count = Field(10_000, description="Open client connections at one time.")
    decoded_bytes: Bytes = Field(20 * 2**20, description="Largest body after decompression (zstd), in bytes.")
    buffered_bytes: Bytes = Field(
        2**30, description="Request bodies held in memory at one time, all requests together, in bytes."
    )


class CompatSection(Section):
    """How closely to follow Ollama where clients differ in taste."""

    native_errors: Literal["auto", "structured", "ollama"] = Field(
        "auto",
        description="Shape of errors on /api paths: structured (error object), ollama (text), auto (text; the object "
        "for curl and its like, and for who asks for it).",
    )


class CorsSection(Section):
    """Which web pages may call the fleet."""

    origins: tuple[Origin, ...] = Field(
        (), max_length=100, description="Origins allowed in addition to those that Ollama allows by itself."
    )
    headers: tuple[FieldName, ...] = Field(
        (),
        max_length=100,
        description="Request fields that pages may send, besides those that Ollama allows and the fleet reads.",
    )


class MonitoringSection(Section):
    """Fleet-wide caps, by the names of the monitoring stack's reference."""

    rate_limit_per_minute: Annotated[Whole, Field(ge=0, le=1_000_000)] = Field(
        60, description="Generations per minute and client on the proxy port; 0 = no limit."
    )
    max_concurrent_requests: Count | None = Field(
        None, description="Requests in flight in the whole fleet; none set = no cap."
    )
    max_queue_size: Annotated[Whole, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="Requests waiting at one time; when set it overrides queue.max_size."
    )


class RateLimitingSection(Section):
    """How often one client may ask: its API key, else its address."""

    enabled: bool = Field(True, description="Whether anybody is limited; false also lifts the proxy port's limit.")
    requests_per_minute: Count = Field(100, description="Requests per minute and client on the metrics port.")


class LoggingSection(Section):
    """What is logged, and how."""

    level: Level = Field("INFO", description="Least serious level that is logged, in any case; LOG_LEVEL sets it too.")
    format: Literal["text", "json"] = Field("text", description="One line of text, or one JSON object, per event.")
