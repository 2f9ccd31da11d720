"""The simulated Ollama over HTTP: the pure model of `fleet.simulator` behind Ollama's wire format."""

from __future__ import annotations

from web.simulator.connection import serve_connection
from web.simulator.engine.host import SeenRequest, SimHost, make_host
from web.simulator.tcp import serve_sim

__all__ = ["SeenRequest", "SimHost", "make_host", "serve_connection", "serve_sim"]
