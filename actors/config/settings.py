"""The configuration as the running process has it: its layers, its file, and how it is changed, reloaded, saved.

Below are the layers of the start: defaults, the file, the environment, flags. What the admin API has changed lies over
them until a reload drops it, and a save writes it into the file. Servers have a layer of their own, which the roster
keeps: they survive both.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import trio

from actors.config import backend_url_check, config_file, reconfigure
from actors.config.disk import FileThreads, Permit, Turns
from actors.config.settings_view import Reconfigurable, SettingsView
from actors.config.sources import LONGEST_LINE, ConfigTrouble, Origin, Outcome, Reading, SavedConfig, check
from actors.security.api_keys import ApiKeys
from fleet.common.errors import BadRequest, Conflict, DiskTimeout, FleetError, NotFound
from fleet.config import Config, ConfigError, Loaded, Problem, load
from fleet.config.live.diff import SOURCE, amended, diff, only, servers_layer
from fleet.config.live.restart_keys import awaiting_restart, held
from fleet.config.live.yaml_writer import Draft, draft, saved
from fleet.config.loading.layers import file_layer, over, overlaid
from fleet.config.loading.sourced_value import SourcedValue
from fleet.config.schema.access import has_admin
from fleet.config.schema.receivers import receivers, rules

log = logging.getLogger("fleet.config")

_SETTLE: Final = 0.2
"""Seconds for which the file must stay as it is before it is believed."""
_LOOKS: Final = 20
_TRIES: Final = 5
_NAMING_FILES: Final = ("security", "server")
"""Sections that name files besides that of the configuration."""

Plan = Callable[[], tuple[Loaded, SourcedValue]]
"""Makes a configuration out of values that nobody changes, so that a worker thread may do it."""
Written = tuple[Reading, list[str]]
"""What the file says now, and what could not be said in it."""
Check = Callable[[Config, Config], Awaitable[None]]
"""Looks at what would be, and at what is."""


# Three things keep changes apart, and none could do the work of another.
#
# The lock orders those who read or write the file: two reloads, or a save between the reading of a text and its taking
# effect, would leave `_base`, `_layer` and `_at_rest` of two different files. It is held over work on a disk, and disks
# hang; so whoever holds it awaits only what has a deadline of its own (`FileThreads`, a lookup of names, a short
# sleep), and a request waits for its turn no longer than `Turns` allows. An await without a limit in there would end
# all changes, for good.
#
# The lock does not keep servers from coming and going: they do so in one turn, by other routes, and must not wait for a
# disk. A plan that was checked in a worker thread may therefore be about a fleet that is no more. `_planned` sees that
# (`fleet.config` is another object) and plans anew; from there to the end of `_settle` nothing may be awaited.
#
# Writing has a thread of its own, one. A save that was given up may still be under way in its thread, which keeps the
# only place until it ends, so it cannot land on top of a later one; nor alone, hours later, since it has to ask its
# `Permit` before the last step. And the shield keeps a save whose client has left from being written without our
# knowing what the file says.
#
# Each kind of work has threads of its own, too: else a certificate on a mount that hangs, asked for again and again,
# would take those that a change of a number needs.
class Settings(SettingsView):
    """What `/config` talks to. Changes come one after the other; each is valid as a whole or does nothing.

    `trouble` is there while the file says something that cannot be used. Who follows the configuration
    (`ConfigRef.follow`) is told in the turn of the change.
    """

    def __init__(self, fleet: Reconfigurable, origin: Origin | None = None) -> None:
        super().__init__(fleet, origin)
        self.trouble: ConfigTrouble | None = None
        self._renewals: list[Callable[[], Awaitable[None]]] = []
        self._lock = trio.Lock()
        """Whoever holds it waits for nothing without a deadline: files are touched by `FileThreads` only."""
        self._turn = Turns(self._lock)
        self._disk = FileThreads("reading the configuration file")
        self._plans = FileThreads("working out the configuration", hint="is the machine overloaded?")
        self._certificates = FileThreads("reading the files of server.tls")
        self._key_files = FileThreads("reading security.keys_file")
        self._writer = FileThreads("writing the configuration file", 1)
        self._refused: str | None = None
        """The text of the file that caused the trouble."""

    @property
    def unread(self) -> bool:
        """Whether the trouble is that the file could not be read at all: it may be possible later, without a change."""
        return self.trouble is not None and self._refused is None

    def renew_also(self, renewal: Callable[[], Awaitable[None]]) -> None:
        """What `renew` reads anew besides: files that the configuration only names. It must not fail."""
        self._renewals.append(renewal)

    async def change(self, mapping: Mapping[str, object], *, dry: bool) -> Outcome:
        """Let `mapping`, which is partial, take effect. Raises `ConfigError` with every problem, DiskTimeout."""
        planning = partial(self._amending, mapping)
        if not mapping.keys().isdisjoint(_NAMING_FILES):
            # Before it is our turn: a mount that hangs is then heard of here, and keeps nobody else waiting.
            running = self._fleet.config
            new, _ = await self._plans.do(_checked, planning(), running, tuple(self._fleet.membership.own_urls))
            await self._check_files(new.config, running)
        async with self._turn:
            new, layer = await self._planned(planning, self._asked_for)
            return self._settle(new, self._below, over(self._layer, layer), dry=dry)

    async def reload(self, asked: str | None, *, dry: bool) -> Outcome:
        """Let a file take effect: the one that `asked` names, or the one of the start. What the API changed is dropped.

        Raises BadRequest (also `ConfigError`), NotFound, DiskTimeout.
        """
        async with self._turn:
            origin, path = await self._placed(asked)
            mine = asked is None or path == await self._disk.do(origin.path.resolve)
            try:
                text = await self._disk.do(config_file.read, path)
                return await self._take(text, origin.name if mine else str(path), mine=mine, dry=dry)
            except FleetError as error:
                if mine and not dry:
                    self._trouble(error, None)
                raise

    async def renew(self) -> None:
        """Read the file of the start anew, if there is one, and what it names. Never raises: what is wrong is told."""
        if self.watchable:
            async with self._lock:
                text = None
                try:
                    origin, path = await self._placed(None)
                    text = await self._disk.do(config_file.read, path)
                    if not text.strip():
                        raise BadRequest(f"{path.name} is empty: a reload would take that for a configuration")
                    await self._take(text, origin.name, mine=True, dry=False)
                except FleetError as error:
                    self._trouble(error, text)
        for renewal in self._renewals:
            await renewal()

    async def check_file(self) -> None:
        """See whether the file has changed by itself, and follow it. Never raises: what is wrong becomes `trouble`."""
        async with self._lock:
            text = None
            try:
                origin, path = await self._placed(None)
                text = await self._settled(path)
                if self._at_rest is not None and text == self._at_rest.text:
                    self._recovered()
                elif not text.strip():
                    raise BadRequest(f"{path.name} is empty: a reload would take that for a configuration")
                elif text != self._refused:
                    await self._take(text, origin.name, mine=True, dry=False)
            except FleetError as error:
                self._trouble(error, text)

    async def save(self, asked: str | None) -> SavedConfig:
        """Write the configuration into the file that `asked` names, or into that of the start.

        Raises BadRequest, Conflict (the file holds something that we have not read), NotSaved, DiskTimeout.
        """
        async with self._turn:
            origin, path = await self._placed(asked)
            mine = asked is None or path == await self._disk.do(origin.path.resolve)
            source = origin.name if mine else str(path)
            below, config = self._below, self.config
            servers = servers_layer(below.loaded, config.servers).value.get("servers")
            draw = partial(_draw, below, origin.env, self._layer, servers)
            with trio.CancelScope(shield=True):  # the file and what we know of it change together, whoever leaves
                reading, left_out = await self._written(partial(self._write, path, source, draw, mine))
            overridden = [change.path for change in diff(reading.loaded.config, config)]
            if mine:
                self._base = self._at_rest = reading
                self._layer = only(self._layer, set(overridden))  # the rest is in the file now
                self._fleet.membership.follow(self._fleet.config.servers, base=reading.loaded.config.servers)
                self._recovered()
            log.info("configuration saved to %s", source)
            return SavedConfig(path, overridden, left_out)

    # ---- inside

    async def _written(self, write: Callable[[Callable[[], bool]], Written]) -> Written:
        """What comes of a write. Raises DiskTimeout; nothing is written later, then, unless the file is being replaced
        at that very moment: the next look finds that as it finds the change of an editor.
        """
        permit = Permit()
        try:
            return await self._writer.do(write, permit.use)
        except DiskTimeout:
            permit.withdraw()
            raise

    async def _placed(self, asked: str | None) -> tuple[Origin, Path]:
        """In a worker thread, because links have to be followed."""
        return await self._disk.do(self._place, asked)

    async def _settled(self, path: Path) -> str:
        """The text once nobody writes any more: half of a file may well be a valid configuration."""
        text = await self._disk.do(config_file.read, path)
        for _ in range(_LOOKS if self._at_rest is None or text != self._at_rest.text else 0):
            await trio.sleep(_SETTLE)
            before, text = text, await self._disk.do(config_file.read, path)
            if text == before:
                break
        return text

    async def _take(self, text: str, source: str, *, mine: bool, dry: bool) -> Outcome:
        assert self._origin is not None
        loading = partial(load, text, self._origin.env, self._origin.flags, source=source)
        loaded = await self._plans.do(loading)
        new, layer = await self._planned(partial(self._following, loaded, source))
        reading = Reading(source, text, loaded)
        outcome = self._settle(new, reading, layer, dry=dry)
        if mine and not dry:
            self._at_rest = reading
            self._recovered()
            self.config_ref.reloads.succeed(self._fleet.clock.wall())
        return outcome

    def _amending(self, mapping: Mapping[str, object]) -> Plan:
        below, layer, config = self._below.loaded, self._layer, self.config

        def plan() -> tuple[Loaded, SourcedValue]:
            tree = over(over(below.given, layer), servers_layer(below, config.servers))
            return amended(Loaded(config, {}, tree), mapping)

        return plan

    def _following(self, loaded: Loaded, source: str) -> Plan:
        servers = self._fleet.membership.effective(loaded.config.servers)

        def plan() -> tuple[Loaded, SourcedValue]:
            return overlaid(loaded, servers_layer(loaded, servers), [], source=source), SourcedValue({}, SOURCE)

        return plan

    async def _asked_for(self, new: Config, running: Config) -> None:
        """What only requests are held to. Raises `ConfigError`."""
        keys = self._fleet.keys
        if _has_admin(running, keys) and not _has_admin(held(new, running), keys):
            what = "would leave no admin, so that nobody could change it back; the file may say so"
            raise ConfigError([Problem("security", what, SOURCE)])
        known = {spec.url for spec in running.servers}
        urls = {f"servers.{at}.url": spec.url for at, spec in enumerate(new.servers) if spec.url not in known}
        refused = await backend_url_check.refused(urls, new.security.backends)
        before = receivers(running)
        for path, url in receivers(new).items():
            if url != before.get(path):
                refused |= await backend_url_check.refused({path: url}, rules(new)[path])
        if refused:
            raise ConfigError([Problem(path, why, SOURCE) for path, why in refused.items()])

    async def _planned(self, planning: Callable[[], Plan], also: Check | None = None) -> tuple[Loaded, SourcedValue]:
        """What a plan makes of the fleet in the turn in which this returns, checked as a whole.

        In a worker thread: a thousand servers take a tenth of a second, for which requests shall not wait. It is made
        anew if servers have come or gone meanwhile. Raises `ConfigError`, Conflict.
        """
        for _ in range(_TRIES):
            running, own_urls = self._fleet.config, tuple(self._fleet.membership.own_urls)
            found = await self._plans.do(_checked, planning(), running, own_urls)
            await self._check_files(found[0].config, running)
            if also is not None:
                await also(found[0].config, running)
            if self._fleet.config is running:
                return found
        raise Conflict("servers keep coming and going", details="try again")

    async def _check_files(self, new: Config, running: Config) -> None:
        """Look at the files that a change names anew, and at no others: a disk that hangs is nobody else's business.

        A file of keys is read here, so that requests will only recall it. Raises `ConfigError`, DiskTimeout.
        """
        if new.server.tls not in (running.server.tls, self.config.server.tls):
            await self._certificates.do(config_file.check_tls, new.server.tls)
        file = new.security.keys_file
        if file not in ("", running.security.keys_file, self.config.security.keys_file):
            await self._key_files.do(self._fleet.keys.stored, file)

    def _settle(self, new: Loaded, below: Reading, layer: SourcedValue, *, dry: bool) -> Outcome:
        """Unless it is `dry`, let the outcome take effect, in one turn."""
        before = self.config
        changes = diff(before, new.config)
        if dry:
            late = awaiting_restart(new.config, self._fleet.config)
            return Outcome(new.config, changes, late, dry=True)
        base = None if below is self._base else below.loaded.config.servers
        self._base, self._layer, self._wanted = below, layer, new.config
        reconfigure.apply(self.config_ref, self._fleet.membership, new.config, base)
        if changes:
            paths = ", ".join(change.path for change in changes)
            log.info("configuration changed: %s", paths[:LONGEST_LINE])
        return Outcome(self.config, changes, self.late, dry=False)

    def _write(
        self, path: Path, source: str, draw: Callable[[], Draft], mine: bool, wanted: Callable[[], bool]
    ) -> Written:
        """In a worker thread."""
        assert self._origin is not None
        drawn = draw()
        try:
            old = config_file.read(path)
        except NotFound:
            old = None
        if mine and old is not None and self._at_rest is not None and old != self._at_rest.text:
            raise Conflict(f"{path.name} has changed since it was read", details="reload it first, or mend it")
        try:
            text = saved(old, drawn, self._origin.env, source=source)
        except ConfigError as error:
            raise Conflict(f"{path.name} is not a configuration of the fleet", details=error.details) from None
        reading = Reading(source, text, load(text, self._origin.env, self._origin.flags, source=source))
        config_file.write(path, text, wanted)
        return reading, drawn.left_out

    def _trouble(self, error: FleetError, text: str | None) -> None:
        problems = error.problems if isinstance(error, ConfigError) else [Problem("file", error.message, self.source)]
        since = self._fleet.clock.wall() if self.trouble is None else self.trouble.since
        told = self.trouble
        passing = isinstance(error, DiskTimeout | Conflict)  # the same text may be fine at the next look
        self.trouble, self._refused = ConfigTrouble(since, tuple(problems)), None if passing else text
        again = told is not None and told.problems == self.trouble.problems
        self.config_ref.reloads.fail(since, self.trouble.text, again=again)
        if not again:
            log.warning("the configuration file cannot be used, so nothing is changed: %s", self.trouble.text)

    def _recovered(self) -> None:
        if self.trouble is not None:
            log.info("the configuration file can be used again")
        self.trouble = self._refused = None
        self.config_ref.reloads.recover()


def _has_admin(config: Config, keys: ApiKeys) -> bool:
    file = config.security.keys_file
    return has_admin(config, keys.stored(file) if file else ())


def _draw(below: Reading, env: Mapping[str, str], layer: SourcedValue, servers: SourcedValue | None) -> Draft:
    return draft(file_layer(below.text, env, source=below.source), layer, servers)


def _checked(plan: Plan, running: Config, own_urls: tuple[str, ...]) -> tuple[Loaded, SourcedValue]:
    """In a worker thread."""
    new, layer = plan()
    check(new, held(new.config, running), own_urls)
    return new, layer
