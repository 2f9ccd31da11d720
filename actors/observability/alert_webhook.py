"""The webhook: each alert that fires or ends as a signed POST, one after the other, tried again for a while.

Off while `alerts.webhook.url` is empty. Nothing is lost in silence: what could not be delivered, or found no room, is
one line in the log and counted. What has not been delivered when the process ends is gone.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Final

import httpx
import orjson
import trio

from actors.kit.inbox import Inbox
from fleet.config.schema.receivers import WEBHOOK, rules
from fleet.observability.alerting.webhook_payload import Delivery, Told, headers, hopeless, pause
from fleet.security.backend_addresses import address_of, refusal, refused_addresses

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from actors.kit.clock import Clock
    from actors.state.config_ref import ConfigRef
    from fleet.config.schema.observability import WebhookSection
    from fleet.observability.alerting.alert import Alert

log = logging.getLogger("fleet.alerts")

MOST: Final = 100
"""Deliveries that wait; more drop the oldest."""
MOST_ADDRESSES: Final = 4
"""Addresses of the receiver's name that are dialled in one attempt."""
LOOKUP: Final = 2.0
"""Seconds a name server has to answer."""


class NotDelivered(Exception):
    """This attempt failed. `final`: so would the next."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


@cache
def _trust() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


class Webhook:
    """The cell and the loop. `note` is synchronous, and cannot fail."""

    def __init__(self, config: ConfigRef, clock: Clock, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.delivered = 0
        self.failed = 0
        self.dropped = 0
        self.transport = transport
        self._config = config
        self._clock = clock
        self._told = Told()
        self._waiting: Inbox[Delivery] = Inbox(MOST, oldest_goes=True)
        self._run = f"{round(clock.wall() * 1000):x}"
        self._numbers = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enqueue(self, alert: Alert) -> None:
        """An alert has changed: send it, if it is one to send."""
        settings = self._config.current.alerts.webhook
        if not settings.url.get_secret_value() or (event := self._told.event(alert, settings.severity)) is None:
            return
        self._numbers += 1
        lost = self._waiting.offer(Delivery(f"{self._run}-{self._numbers}", event, alert.payload()))
        if lost is not None:
            self.dropped += 1
            log.warning("alert %s was not delivered: %d others wait already", lost.payload["id"], MOST)

    async def run(self) -> None:
        """Deliver until cancelled; a crash loses the delivery in hand."""
        while True:
            await self._waiting.wait()
            for delivery in self._waiting.take(1):
                await self._deliver(delivery)

    async def _deliver(self, delivery: Delivery) -> None:
        attempt = 0
        while settings := self._settings():
            attempt += 1
            try:
                await self._send(settings, delivery, attempt)
            except NotDelivered as error:
                if error.final or attempt >= settings.attempts:
                    self.failed += 1
                    what = "alert %s was not delivered to the webhook in %d attempts: %s"
                    log.warning(what, delivery.payload["id"], attempt, error)
                    return
            else:
                self.delivered += 1
                return
            await trio.sleep(pause(attempt, self._clock.chance.random()))

    def _settings(self) -> WebhookSection | None:
        settings = self._config.current.alerts.webhook
        return settings if settings.url.get_secret_value() else None

    async def _send(self, settings: WebhookSection, delivery: Delivery, attempt: int) -> None:
        """One attempt. Raises NotDelivered. No URL in its words: its path may be a secret."""
        with trio.move_on_after(settings.timeout):
            url = _parsed(settings.url.get_secret_value())
            try:
                status = await self._try(settings, delivery, url, await self._addresses(url, attempt))
            except (httpx.HTTPError, OSError) as error:
                raise NotDelivered(f"{type(error).__name__}") from None
            if not 200 <= status < 300:
                raise NotDelivered(f"the receiver answered {status}", final=hopeless(status))
            return
        raise NotDelivered(f"no answer within {settings.timeout:g} s")

    async def _try(
        self, settings: WebhookSection, delivery: Delivery, url: httpx.URL, addresses: Sequence[str | None]
    ) -> int:
        """The status of the answer of the first address that takes a connection."""
        *others, last = addresses
        for address in others:
            with suppress(httpx.ConnectError):
                return await self._post(settings, delivery, url, address)
        return await self._post(settings, delivery, url, last)

    async def _post(self, settings: WebhookSection, delivery: Delivery, url: httpx.URL, address: str | None) -> int:
        """The status of the answer. A name is not asked for again: by now it may mean another address."""
        body, timestamp = orjson.dumps(delivery.payload), str(int(self._clock.wall()))
        secret = None if settings.secret is None else settings.secret.get_secret_value()
        said, more = headers(delivery, timestamp, body, secret), {}
        if address is not None:
            said["Host"], more["sni_hostname"] = url.netloc.decode("ascii"), url.raw_host.decode("ascii")
            url = url.copy_with(host=address)
        async with (
            httpx.AsyncClient(
                transport=self.transport, verify=_trust(), trust_env=False, follow_redirects=False, timeout=None
            ) as client,
            client.stream("POST", url, content=body, headers=said, extensions=more) as answer,
        ):
            return answer.status_code  # its body is of no use, and may be endless

    async def _addresses(self, url: httpx.URL, attempt: int) -> Sequence[str | None]:
        """Where to send it, each attempt beginning with another address of the name; None: the URL has an address.

        Raises NotDelivered for addresses where nobody should be sent, and for names without any.
        """
        section, host = rules(self._config.current)[WEBHOOK], url.host
        why, found = refusal(f"http://[{host}]" if ":" in host else f"http://{host}", section), list[str]()
        if why is None and address_of(host) is None:
            found = await _addresses(host)
            why = refused_addresses(host, found, section)
            if not found:
                raise NotDelivered("its name has no address")
        if why is not None:
            raise NotDelivered(f"its address {why}", final=True)
        first = (attempt - 1) % len(found) if found else 0
        return [*found[first:], *found[:first]][:MOST_ADDRESSES] or [None]


def _parsed(url: str) -> httpx.URL:
    try:
        return httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise NotDelivered("its address is none", final=True) from None


async def _addresses(host: str) -> list[str]:
    with trio.move_on_after(LOOKUP):
        try:
            rows = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []
        return [str(row[4][0]) for row in rows]
    return []
