"""The simulated Ollama over HTTP: the pure model of `fleet.simulator` behind Ollama's wire format."""

from __future__ import annotations

from web.sim.connection import serve_connection
from web.sim.host import Seen, SimHost, make_host
from web.sim.tcp import serve_sim

__all__ = ["Seen", "SimHost", "make_host", "serve_connection", "serve_sim"]
