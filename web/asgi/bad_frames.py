"""Frames of a websocket that are none: their sender is told so (RFC 6455, 7.1.7) before the connection ends.

wsproto finds them and names the code: 1002 for what breaks the protocol, 1007 for text that is no UTF-8. Hypercorn
would only cut the connection, which to a client looks like a fault of the network.
"""

from __future__ import annotations

from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.ws_stream import FrameTooLargeError, WSStream
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping
from wsproto.frame_protocol import CloseReason


class FrameStream(WSStream):
    """One websocket. To be put in the place of Hypercorn's own before it has heard anything."""

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            match event:
                case Message():
                    if not await self._gather(event):
                        break
                case Ping():
                    await self._send_wsproto_event(event.response())
                case CloseConnection():
                    await self._part(event)

    async def _gather(self, event: Message) -> bool:  # type: ignore[type-arg]
        """Whether it was not too much."""
        try:
            self.buffer.extend(event)
        except FrameTooLargeError:
            await self._send_wsproto_event(CloseConnection(code=CloseReason.MESSAGE_TOO_BIG))
            return False
        if event.message_finished:
            assert self.app_put is not None
            await self.app_put(self.buffer.to_message())
            self.buffer.clear()
        return True

    async def _part(self, event: CloseConnection) -> None:
        """The client says goodbye, or, while the connection is open, wsproto has found something that is no frame."""
        if self.connection.state is ConnectionState.REMOTE_CLOSING:
            await self._send_wsproto_event(event.response())
        elif self.connection.state is ConnectionState.OPEN:
            await self._send_wsproto_event(CloseConnection(code=event.code, reason="malformed frame"))
        await self.send(StreamClosed(stream_id=self.stream_id))
