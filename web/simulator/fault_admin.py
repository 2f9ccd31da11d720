"""The simulator's own routes: look inside, change faults."""

from __future__ import annotations

import orjson

from web.simulator.engine.errors import ApiError, go_json
from web.simulator.engine.exchange import SimulatedExchange
from web.simulator.engine.faults import BadFault


async def state(exchange: SimulatedExchange) -> None:
    """What the server is doing."""
    await exchange.reply(200, go_json(exchange.host.state()), "application/json")


async def set_faults(exchange: SimulatedExchange) -> None:
    """`{"faults": ["kind:arg", ...]}` replaces the faults in force. Raises `ApiError` 400."""
    try:
        flags = orjson.loads(exchange.body)["faults"]
        exchange.host.faults.set(*flags)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error) if isinstance(error, BadFault) else 'expected {"faults": ["kind:arg", ...]}'
        raise ApiError(400, reason) from None
    await state(exchange)
