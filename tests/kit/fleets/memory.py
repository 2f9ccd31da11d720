"""Two ends of a connection in memory, with what Trio's own pair lacks: a bounded buffer and a reset."""

from __future__ import annotations

import trio


class _Pipe:
    """One direction: bytes, a limit, and how it ended."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.data = bytearray()
        self.ended = False
        self.broken = False
        self.moved = trio.lowlevel.ParkingLot()

    def stir(self) -> None:
        self.moved.unpark_all()


class MemoryEnd(trio.abc.HalfCloseableStream):
    """One end. Writing blocks while the other side does not read; `abort()` is a reset for the other side."""

    def __init__(self, outgoing: _Pipe, incoming: _Pipe) -> None:
        self._out = outgoing
        self._in = incoming
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        rest = memoryview(bytes(data))
        self._check_writable()
        while rest:
            room = self._out.capacity - len(self._out.data)
            if room > 0:
                self._out.data += rest[:room]
                rest = rest[room:]
                self._out.stir()
            else:
                await self._out.moved.park()
            self._check_writable()

    def _check_writable(self) -> None:
        if self._closed or (self._out.ended and not self._out.broken):
            raise trio.ClosedResourceError
        if self._out.broken or self._in.broken:
            raise trio.BrokenResourceError("connection reset")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check_writable()
        while len(self._out.data) >= self._out.capacity:
            await self._out.moved.park()
            self._check_writable()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._in.data:
            if self._closed:
                raise trio.ClosedResourceError
            if self._in.broken:
                raise trio.BrokenResourceError("connection reset")
            if self._in.ended:
                return b""
            await self._in.moved.park()
        size = len(self._in.data) if max_bytes is None else max_bytes
        piece = bytes(self._in.data[:size])
        del self._in.data[:size]
        self._in.stir()
        return piece

    @property
    def readable(self) -> bool:
        """Whether a read would return at once: data, an end, or a reset."""
        return bool(self._in.data) or self._in.ended or self._in.broken or self._closed

    async def send_eof(self) -> None:
        self._out.ended = True
        self._out.stir()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """A clean end for the other side's reads, a broken pipe for its writes."""
        if self._closed:
            return
        self._closed = self._out.ended = self._in.broken = True
        self._in.data.clear()
        self._in.stir()
        self._out.stir()

    def abort(self) -> None:
        """A reset: what is under way still arrives, then both directions are broken."""
        self._out.broken = True
        self.close()


def memory_pair(capacity: int = 65536) -> tuple[MemoryEnd, MemoryEnd]:
    """Two connected ends; each direction holds `capacity` bytes."""
    there, back = _Pipe(capacity), _Pipe(capacity)
    return MemoryEnd(there, back), MemoryEnd(back, there)
