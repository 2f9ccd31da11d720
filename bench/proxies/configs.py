"""Configuration files of the contenders, as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import yaml


def _addresses(urls: Sequence[str]) -> list[str]:
    return [urlsplit(url).netloc for url in urls]


def nginx(port: int, urls: Sequence[str], *, root: bool) -> str:
    """One worker, kept connections to the servers, nothing buffered, nothing logged."""
    servers = " ".join(f"server {address};" for address in _addresses(urls))
    return f"""\
{"user root;" if root else ""}
worker_processes 1; worker_rlimit_nofile 20000; daemon off; pid nginx.pid; error_log stderr crit;
events {{ worker_connections 18000; }}
http {{
  access_log off; client_max_body_size 0; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  upstream servers {{ {servers} keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://servers; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h;
    }}
  }}
}}
"""


def haproxy(port: int, urls: Sequence[str]) -> str:
    """One thread, kept connections to the servers."""
    servers = "\n".join(f"  server s{i} {address}" for i, address in enumerate(_addresses(urls)))
    return f"""\
global
  nbthread 1
  maxconn 5000
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
  option http-no-delay
listen proxy
  bind 127.0.0.1:{port} backlog 4096
  balance roundrobin
{servers}
"""


def fleet(ports: tuple[int, int, int], urls: Sequence[str]) -> str:
    """Everything as it comes, only quieter, with no limit on clients, and with servers that take as much as we send.

    `ports` are the proxy's, the orchestrator's and the dashboard's.
    """
    servers = [{"id": f"s{i}", "url": url, "max_concurrency": 1024} for i, url in enumerate(urls)]
    listen = {
        "host": "127.0.0.1",
        "proxy_port": ports[0],
        "orchestrator_port": ports[1],
        "dashboard_port": ports[2],
        "metrics_port": 0,
    }
    more = {
        "logging": {"level": "WARNING"},
        "security": {"rate_limiting": {"enabled": False}},
        "dashboard": {"max_clients": 200, "max_clients_per_address": 200},
    }
    return yaml.safe_dump({"servers": servers, "server": listen, **more}, sort_keys=False)


def litellm(urls: Sequence[str]) -> str:
    """Every server as a deployment of m0, by the OpenAI routes, its shortest way through."""
    deployments = [
        {
            "model_name": "m0",
            "litellm_params": {"model": "openai/m0", "api_base": f"{url}/v1", "api_key": "none"},
        }
        for url in urls
    ]
    return yaml.safe_dump({"model_list": deployments, "litellm_settings": {"telemetry": False}}, sort_keys=False)


def olla(port: int, urls: Sequence[str]) -> str:
    """The fast engine, no logging of requests, no limits."""
    endpoints = [
        {
            "url": url,
            "name": f"s{i}",
            "type": "ollama",
            "priority": 100,
            "model_url": "/api/tags",
            "health_check_url": "/",
            "check_interval": "5s",
            "check_timeout": "2s",
        }
        for i, url in enumerate(urls)
    ]
    limited = ("global_requests_per_minute", "per_ip_requests_per_minute", "health_requests_per_minute", "burst_size")
    limits = dict.fromkeys(limited, 1_000_000_000)
    server = {
        "host": "127.0.0.1",
        "port": port,
        "request_logging": False,
        "write_timeout": "0s",
        "request_limits": {"max_body_size": 104857600, "max_header_size": 65536},
        "rate_limits": limits,
    }
    discovery = {"enabled": True, "interval": "5m", "timeout": "10s", "concurrent_workers": 2}
    document = {
        "server": server,
        "proxy": {"engine": "olla", "profile": "auto", "load_balancer": "least-connections"},
        "discovery": {"type": "static", "static": {"endpoints": endpoints}, "model_discovery": discovery},
        "logging": {"level": "error", "format": "json", "output": "stdout"},
    }
    return yaml.safe_dump(document, sort_keys=False)
