"""Another configuration for a running fleet: one immutable value is swapped, and who has copied from it is told.

Requests read the configuration when they need it, so most keys act by the swap alone. No request is dropped: what
runs goes on by what it began with, and who waits goes on waiting.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from actors.state.messages import Reconfigured
from fleet.breakers.state_machine import BreakerSettings
from fleet.config import Config, ServerSpec
from fleet.config.live.restart_keys import held

if TYPE_CHECKING:
    from actors.system import System


def apply(system: System, config: Config, base: Iterable[ServerSpec] | None = None) -> Config:
    """Let `config` take effect, in one turn; returns what is in effect now.

    Keys that need a restart keep the value they have, so that the fleet never believes to be what it is not. `base`
    are the servers that the configuration's own layers list, if these were read anew. `config` must be valid as a whole
    and with the held keys: see `fleet.config.schema.model.conflicts`.
    """
    before = system.fleet.config
    servers = config.servers
    system.fleet.config = held(config.model_copy(update={"servers": before.servers}), before)
    if base is not None or servers != before.servers:
        system.membership.follow(servers, base=base)
    _tell(system, before)
    return system.fleet.config


def _tell(system: System, before: Config) -> None:
    """Those who keep something of their own."""
    fleet, now = system.fleet, system.fleet.config
    fleet.scheduler.budget.ratio, fleet.scheduler.budget.floor = now.retry.budget_ratio, now.retry.budget_floor
    settings, enabled = BreakerSettings.from_config(now.circuit_breaker), now.enable_circuit_breaker
    if (settings, enabled) != (system.breakers.settings, system.breakers.enabled):
        system.breakers.configure(settings, enabled)
    if now.health != before.health:
        for cell in fleet.servers.values():
            cell.probe_now.set()  # else a long interval would first have to end
    fleet.scheduler.mailbox.cast(Reconfigured())
