"""Another configuration for a running fleet: one immutable value is swapped, and who has copied from it is told.

Requests read the configuration when they need it, so most keys act by the swap alone. No request is dropped: what
runs goes on by what it began with, and who waits goes on waiting.
"""

from __future__ import annotations

from collections.abc import Iterable

from actors.servers.membership import Membership
from actors.state.config_ref import ConfigRef
from fleet.config import Config, ServerSpec
from fleet.config.live.restart_keys import held


def apply(ref: ConfigRef, membership: Membership, config: Config, base: Iterable[ServerSpec] | None = None) -> Config:
    """Let `config` take effect, in one turn; returns what is in effect now.

    Keys that need a restart keep the value they have, so that the fleet never believes to be what it is not. `base`
    are the servers that the configuration's own layers list, if these were read anew. `config` must be valid as a whole
    and with the held keys: see `fleet.config.schema.model.conflicts`.
    """
    before, servers = ref.current, config.servers
    ref.put(held(config.model_copy(update={"servers": before.servers}), before))
    if base is not None or servers != before.servers:
        membership.follow(servers, base=base)
    ref.tell(before)
    return ref.current
