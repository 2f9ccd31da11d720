"""Many servers' progress of one pull as one: monotonic, with exactly one success, and that one last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fleet.common.ids import ServerId

Row = Mapping[str, object]


class MergedPull:
    """Takes every server's records, gives what the client shall see.

    A layer has come as far as on the slowest server that still pulls. A status without a layer is shown once every
    such server has said it. What a server says after it failed is ignored.
    """

    def __init__(self, servers: Sequence[ServerId]) -> None:
        self._pulling = set(servers)
        self._done: set[ServerId] = set()
        self._errors: dict[ServerId, str] = {}
        self._said: dict[str, set[ServerId]] = {}
        self._shown: set[str] = set()
        self._layers: dict[str, dict[ServerId, int]] = {}
        self._totals: dict[str, int] = {}
        self._labels: dict[str, str] = {}
        self._reached: dict[str, int] = {}

    def take(self, server: ServerId, record: Row | None) -> Iterator[dict[str, object]]:
        """One record of one server (None: it has ended); yields the lines that follow from it."""
        if server not in self._pulling:
            return
        self._note(server, record)
        yield from self._statuses()
        yield from self._progress()

    @property
    def succeeded(self) -> bool:
        """Whether at least one server has the model now."""
        return bool(self._done)

    def last(self) -> dict[str, object]:
        """The line that ends the stream."""
        if self._done:
            return {"status": "success"}
        texts = list(dict.fromkeys(self._errors.values())) or ["no server answered"]
        return {"error": texts[0] if len(texts) == 1 else "; ".join(texts)}

    def _note(self, server: ServerId, record: Row | None) -> None:
        if record is None:
            self._fail(server, "the connection ended before the pull did")
        elif "error" in record:
            self._fail(server, str(record["error"]))
        elif record.get("status") == "success":
            self._done.add(server)
            self._pulling.discard(server)
        elif isinstance(digest := record.get("digest"), str):
            self._note_layer(server, digest, record)
        else:
            self._said.setdefault(str(record.get("status") or "pulling"), set()).add(server)

    def _fail(self, server: ServerId, why: str) -> None:
        self._errors[server] = why
        self._pulling.discard(server)
        self._said.setdefault(f"{server} failed: {why}", set()).add(server)

    def _note_layer(self, server: ServerId, digest: str, record: Row) -> None:
        total, completed = _whole(record.get("total")), _whole(record.get("completed"))
        self._labels.setdefault(digest, str(record.get("status") or "pulling"))
        self._totals[digest] = max(total, self._totals.get(digest, 0))
        come = self._layers.setdefault(digest, {})
        come[server] = max(completed, come.get(server, 0))

    def _statuses(self) -> Iterator[dict[str, object]]:
        """A failure is told once somebody else goes on or has succeeded; else the last line tells it."""
        for status, servers in self._said.items():
            about_failure = bool(servers & self._errors.keys()) and " failed: " in status
            ready = bool(self._done) if about_failure else self._pulling <= servers
            first = not self._shown and not about_failure
            if status not in self._shown and (ready or first):
                self._shown.add(status)
                yield {"status": status}

    def _progress(self) -> Iterator[dict[str, object]]:
        for digest, come in self._layers.items():
            slowest = min((come.get(server, 0) for server in self._pulling), default=self._totals[digest])
            if slowest > self._reached.get(digest, -1):
                self._reached[digest] = slowest
                line: dict[str, object] = {"status": self._labels[digest], "digest": digest}
                line["total"] = self._totals[digest]
                if slowest:
                    line["completed"] = slowest
                yield line


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
