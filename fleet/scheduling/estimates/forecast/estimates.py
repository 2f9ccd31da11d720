"""What a request would cost on a server, term by term, and what is learned when it ended: the face of the estimates.

Formula: first token = wait + (load + prefill) x trust; done = that + decode x trust (see the modules of these names).
Units: seconds. A policy asks `profile` once per request and `predict` once per candidate; whoever holds the lease tells
`sent`, `spoke` and `learn`. No clock, no dice.

What makes `predict` cheap: all that needs sorting or an exponential is worked out when a request ended, and again for a
pair that nobody has used for ten seconds; a wait is kept until something moves there, or a tenth of it is over.

What it is wrong about: the probe of a slot that became due, and what is forgotten, show up to ten seconds late.
"""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Sequence
from typing import Final
from zlib import crc32

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.lru_table import LruTable
from fleet.scheduling.estimates.affinity.affinity_table import AffinityTable
from fleet.scheduling.estimates.affinity.prompt_links import PromptLink
from fleet.scheduling.estimates.answer_tokens import MOST, AnswerTokens, Asker
from fleet.scheduling.estimates.averages.bounds import sane
from fleet.scheduling.estimates.cache_hits import CacheHits
from fleet.scheduling.estimates.decode import DecodeSpeed
from fleet.scheduling.estimates.failure_cost import FailureCost
from fleet.scheduling.estimates.forecast.prediction_errors import PredictionErrors, RatioTold
from fleet.scheduling.estimates.forecast.runner_figures import (
    FRESH,
    OpenRequest,
    RunnerFigures,
    ServerLeases,
    seconds_left,
)
from fleet.scheduling.estimates.forecast.terms import (
    AnswerTold,
    Footing,
    Outcome,
    RequestProfile,
    ServerView,
    Terms,
)
from fleet.scheduling.estimates.load import CACHED, DISK, REAL, LoadSeconds
from fleet.scheduling.estimates.prefill import PrefillSpeed, batch_bin
from fleet.scheduling.estimates.prompt_tokens import PromptTokens
from fleet.scheduling.estimates.runner_slots import UNSEEN, RunnerSlots, ServiceTold
from fleet.scheduling.estimates.trust import Trust
from fleet.scheduling.estimates.wait import SERVICE, ServiceTimes, wait_seconds

PATIENCE: Final = 3.0
"""A first chunk later than this many times its prediction is late: the 95th percentile of a prefill, roughly."""
_SOONEST: Final = 0.25
_BINS: Final = tuple(batch_bin(open_beside + 1) for open_beside in range(9))
_LAST: Final = len(_BINS) - 1
TEACHES: Final = 0.25
"""Seconds: of the requests to a pair, one in so many teaches times. Loads, failures and caches are always noted."""
_PAIRS: Final = 16_384
_SERVERS: Final = 1024
_LEASES: Final = 65_536


class Estimates:
    """All estimators, each open to be read. Bounded memory: 16,384 pairs, 65,536 leases, and what each may hold."""

    def __init__(self, told: RatioTold | None = None) -> None:
        """`told` hears of what predictions were worth."""
        self.prompt_tokens = PromptTokens()
        self.answer_tokens = AnswerTokens()
        self.service = ServiceTimes()
        self.loads = LoadSeconds()
        self.prefill = PrefillSpeed()
        self.decode = DecodeSpeed()
        self.hits = CacheHits()
        self.trust = Trust()
        self.failures = FailureCost()
        self.affinity = AffinityTable()
        self.errors = PredictionErrors(told)
        self.doubted: set[tuple[ServerId, ModelName]] = set()
        """Pairs that predictions are not to be trusted for, as it stood when they were last worked out."""
        self.lessons = 0
        """How many requests have taught something; what has not grown since is on disk already."""
        self._runners: LruTable[tuple[ServerId, ModelName], RunnerFigures] = LruTable(_PAIRS)
        self._servers: LruTable[ServerId, ServerLeases] = LruTable(_SERVERS)
        self._leases: LruTable[int, OpenRequest] = LruTable(_LEASES)

    def profile(
        self,
        asker: Asker,
        size: int,
        now: float,
        *,
        links: Sequence[PromptLink] = (),
        session: int | None = None,
        options: Hashable = None,
        num_predict: int | None = None,
        context: float | None = None,
    ) -> RequestProfile:
        """What a request is expected to be. `size`: bytes of its prompt, images apart; `context`: tokens that fit."""
        model = asker[1]
        tokens = self.prompt_tokens.tokens(model, size, now)
        room = None if context is None else context - tokens
        answer = self.answer_tokens.tokens(asker, now, num_predict, room)
        hits: dict[ServerId, tuple[float, float]] = {}
        if links or session is not None:
            share = tokens / max(size, 1)
            for server, hit in self.affinity.find(model, links, session, now).items():
                kept = self.hits.chance(server, hit.age, now)
                hits[server] = (min(hit.size * share, tokens) * kept, hit.age)
        return RequestProfile(model, asker, size, tokens, answer, options, links, session, hits)

    def predict(
        self, request: RequestProfile, server: ServerView, now: float, ahead: int = 0, beside: int = 0
    ) -> Terms:
        """What the request would cost there.

        `ahead`: how many wait for its runner there and go before it; `beside`: how many slots of the server those take
        before it who wait for others (see `takes`).
        """
        name, model = server.id, request.model
        runner = self._runners.get((name, model))
        if runner is None or now >= runner.until:
            runner = self._fresh(server, model, now)
        leases = runner.leases
        batch, open_there = len(leases), len(runner.server.leases)
        if batch + ahead < runner.limit and open_there + ahead + beside < server.slots:
            wait = 0.0
        else:
            wait = self._wait(runner, ahead, beside, server.slots, now)
        tokens = request.tokens
        load = 0.0
        if not server.serves(model, request.options):
            load, drain = self._load(runner, server, request.options, now)
            wait = max(wait, drain)
        elif request.hits and name in request.hits:
            tokens -= request.hits[name][0]
        step = runner.alone + runner.beside * open_there
        return Terms(
            wait,
            load,
            tokens * runner.per_token[batch if batch < _LAST else _LAST],
            request.answer * (step if step < runner.most else runner.most),
            tokens * (batch + 1),  # see `lmetric`
            runner.footing,
        )

    def least_load(self, server: ServerId, model: ModelName, now: float) -> float:
        """Seconds that a load of it there takes at least, as it was worked out last; 0 while one is under way."""
        runner = self._runners.get((server, model))
        if runner is None or self.loads.loading(runner.pair, now):
            return 0.0
        return runner.loading[self.loads.tier(runner.pair, now)] * runner.footing.trust

    def takes(self, server: ServerId, model: ModelName | None, many: int) -> int:
        """How many slots of the server so many who wait for a model can take now: as many as its runner has free."""
        runner = self._runners.get((server, model)) if model is not None else None
        return many if runner is None else min(many, max(0, runner.limit - len(runner.leases)))

    def limit(self, pair: Pair) -> int:
        """How many requests its runner takes now, a probe included."""
        runner = self._runners.get(pair)
        return UNSEEN if runner is None else runner.limit

    def slots(self, pair: Pair) -> RunnerSlots | None:
        """What is known of a runner's slots; None if it was never used."""
        runner = self._runners.get(pair)
        return None if runner is None else runner.slots

    @property
    def open(self) -> int:
        """How many requests were sent and have not ended."""
        return len(self._leases)

    # ---- what happens

    def sent(self, number: int, request: RequestProfile, server: ServerView, terms: Terms, now: float) -> None:
        """The request went there, under this number of its lease."""
        if number in self._leases or len(self._leases) >= _LEASES:
            self.learn(number if number in self._leases else next(iter(self._leases)), None, now, "left")
        runner = self._runners.get((server.id, request.model)) or self._fresh(server, request.model, now)
        there = runner.server
        there.move(now)
        began = terms.load > 0.0 and self.loads.began(runner.pair, runner.size, now)
        lease = OpenRequest(runner, request, terms, now, len(runner.leases) + 1, there.busy, began)
        patience = max(_SOONEST, PATIENCE * terms.prefill)
        runner.slots.sent(number, now, terms.prefill, patience, loads=terms.load > 0.0)
        runner.leases[number] = there.leases[number] = lease
        self._leases.put(number, lease)
        self._refresh_limit(runner, now)

    def spoke(self, number: int, now: float) -> None:
        """The first chunk of its answer came."""
        lease = self._leases.get(number)
        if lease is None or lease.spoke < math.inf:
            return
        lease.spoke = now
        lease.runner.server.move(now)
        lease.busy = lease.runner.server.busy
        lease.runner.slots.spoke(number, now)
        if lease.began_load:
            self.loads.ended(lease.runner.pair, now)
        self._refresh_limit(lease.runner, now)

    def learn(self, number: int, told: AnswerTold | None, now: float, outcome: Outcome = "well") -> None:
        """The request ended; failures enter nothing but what failures cost. Unknown numbers are ignored."""
        lease = self._leases.pop(number, None)
        if lease is None:
            return
        runner = lease.runner
        runner.server.move(now)
        runner.leases.pop(number, None)
        runner.server.leases.pop(number, None)
        well = outcome == "well"
        runner.slots.ended(number, now, _service_told(told), well=well)
        if outcome == "busy" and not self.loads.loading(runner.pair, now):  # else the load has filled its line
            runner.slots.refused(now)
        if outcome == "failed":
            self.failures.learn(runner.pair, now, now - lease.sent)
            self._stand(runner, now)
        if lease.began_load:
            self.loads.ended(runner.pair, min(now, lease.spoke))
        if well:
            self.failures.learn(runner.pair, now)
        if well and told is not None:
            self.lessons += 1
            self._note_runner(lease, told, now)
            if now >= runner.teaches_at:
                runner.teaches_at = now + TEACHES
                self._learn_times(lease, told, now)
                self._work_out(runner, now)
        self._refresh_limit(runner, now)

    def keep_only(self, numbers: Container[int], now: float) -> None:
        """Forget leases that are not open any more: after a crash, those that are open are the truth."""
        for number in [number for number in self._leases if number not in numbers]:
            self.learn(number, None, now, "left")

    def reloaded(self, pair: Pair, now: float) -> None:
        """The runner was loaded anew, went away or its server restarted: its cache and its slots are unknown."""
        self.affinity.renew(pair)
        runner = self._runners.get(pair)
        if runner is not None:
            runner.slots.reset()
            self._refresh_limit(runner, now)

    # ---- inside

    def _note_runner(self, lease: OpenRequest, told: AnswerTold, now: float) -> None:
        """What of its load and its cache is known now."""
        pair, request = lease.runner.pair, lease.request
        if _loading(told):
            if lease.began_load:
                self.loads.learn(pair, lease.runner.size, told.load_seconds, lease.sent, now)
            self.reloaded(pair, now)
        if request.links or request.session is not None:
            self.affinity.note(pair, request.links, request.session, now)

    def _learn_times(self, lease: OpenRequest, told: AnswerTold, now: float) -> None:
        runner, request, terms = lease.runner, lease.request, lease.terms
        pair, size, loading = runner.pair, runner.size, _loading(told)
        self.loads.seen(pair, now)
        self.service.learn(pair, max(0.0, now - lease.sent - loading), now)
        self._learn_prompt(lease, told, now)
        self.answer_tokens.learn(request.asker, told.output_tokens, now)
        streamed = now - lease.spoke
        beside = (runner.server.busy - lease.busy) / streamed - 1.0 if streamed > 1e-3 else lease.batch - 1.0
        took = told.output_seconds if told.output_seconds is not None else max(0.0, streamed)
        self.decode.learn(pair, size, max(0.0, beside), told.output_tokens, took, now)
        predicted = terms.load + terms.prefill + terms.decode
        length = sane(told.output_tokens, 1.0, MOST)
        decode = terms.decode if length is None else terms.decode / max(request.answer, 1.0) * length
        self.trust.learn(pair, predicted, now - lease.sent, now, terms.load + terms.prefill + decode)
        seen = (("load", terms.load, loading), ("prefill", terms.prefill, told.prompt_seconds))
        came = (*seen, ("decode", terms.decode, told.output_seconds), ("done", predicted, now - lease.sent))
        for term, expected, actual in came:
            self.errors.note(term, expected * terms.footing.trust, actual, now)

    def _learn_prompt(self, lease: OpenRequest, told: AnswerTold, now: float) -> None:
        """Speed and tokens from prompts that were surely not cached; of others, whether they were."""
        runner, request = lease.runner, lease.request
        pair, hit = runner.pair, request.hits.get(runner.pair.server)
        if hit is None:
            self.prompt_tokens.learn(request.model, request.size, told.prompt_tokens, now)
            self.prefill.learn(pair, runner.size, lease.batch, told.prompt_tokens, told.prompt_seconds, now)
        elif not lease.terms.load:
            rate = self.prefill.rate(pair, runner.size, lease.batch, now)
            chance = self.hits.chance(pair.server, hit[1], now)
            full = hit[0] / chance if chance > 0.0 else 0.0
            self.hits.learn(pair.server, hit[1], request.tokens, full, told.prompt_seconds, rate, now)

    def _load(self, runner: RunnerFigures, server: ServerView, options: Hashable, now: float) -> tuple[float, float]:
        """Seconds of loads, its own and those before it, and until what has to leave is idle."""
        pair = runner.pair
        ahead = self.loads.ahead(pair, now)
        if ahead and self.loads.loading(pair, now) and server.joins(pair.model, options):
            return ahead, 0.0
        drain = 0.0
        for model in server.leaving(pair.model, options):
            leaves = self._runners.get((pair.server, model))
            if leaves is not None and leaves.leases:
                drain = max(drain, *(seconds_left(lease, now) for lease in leaves.leases.values()))
        return ahead + runner.loading[self.loads.tier(pair, now)], drain

    def _wait(self, runner: RunnerFigures, ahead: int, beside: int, slots: float, now: float) -> float:
        """The wait for a slot of the runner or of the server, whichever is longer; as it was if nothing has moved."""
        key = (runner.server.version, ahead, beside, slots)
        if runner.waited == key and now < runner.wait_until:
            return max(0.0, runner.wait - (now - runner.wait_at))
        wait = 0.0
        for leases, limit, before in (
            (runner.leases, runner.limit, ahead),
            (runner.server.leases, slots, ahead + beside),
        ):
            if len(leases) + before >= limit:
                left = [seconds_left(lease, now) for lease in leases.values()]
                wait = max(wait, wait_seconds(left, int(min(limit, 1e6)), before, runner.mean))
        runner.waited, runner.wait, runner.wait_at = key, wait, now
        runner.wait_until = now + max(0.05, wait / 10)
        return wait

    def _fresh(self, server: ServerView, model: ModelName, now: float) -> RunnerFigures:
        """The runner with figures that are worked out anew."""
        pair = Pair(server.id, model)
        runner = self._runners.get(pair)
        if runner is None:
            there = self._servers.use(pair.server, lambda: ServerLeases(at=now))
            runner = RunnerFigures(pair, there, RunnerSlots(alone=server.serves_alone(model)))
        if (gone := self._runners.put(pair, runner)) is not None:
            self.doubted.discard(gone)
        runner.size = server.size_of(model)
        self._work_out(runner, now)
        return runner

    def _work_out(self, runner: RunnerFigures, now: float) -> None:
        pair, size = runner.pair, runner.size
        rates = self.prefill.rates(pair, size, now)
        runner.per_token = tuple(1.0 / rates[at] for at in _BINS)
        runner.loading = (self.loads.alone(pair, size, now, CACHED), self.loads.alone(pair, size, now, DISK))
        runner.alone, runner.beside, runner.most = self.decode.line(pair, size, now)
        runner.service = self.service.best(pair, now)
        runner.mean = runner.service.mean(SERVICE, now)
        self._stand(runner, now)
        runner.until = now + FRESH + crc32(f"{pair.server} {pair.model}".encode()) % 7  # not all at once
        self._refresh_limit(runner, now)

    def _stand(self, runner: RunnerFigures, now: float) -> None:
        pair, trust = runner.pair, self.trust.of(runner.pair)
        reliable = self.trust.reliable(pair, now)
        if reliable:
            self.doubted.discard(pair)
        elif pair in self._runners:
            self.doubted.add(pair)
        factor = 1.0 if trust is None else trust.factor(now)
        runner.footing = Footing(factor, reliable, self.failures.chance(pair, now), self.failures.lost(pair, now))

    def _refresh_limit(self, runner: RunnerFigures, now: float) -> None:
        runner.limit = runner.slots.limit(now)


def _service_told(told: AnswerTold | None) -> ServiceTold | None:
    """When the answer says all of its times; None else."""
    if told is None or told.total_seconds is None or told.prompt_seconds is None or told.output_seconds is None:
        return None
    hidden = told.total_seconds - (told.load_seconds or 0.0) - told.prompt_seconds - told.output_seconds
    times = (hidden, told.prompt_seconds, told.output_seconds)
    return ServiceTold(*times) if min(times) >= -1.0 and sum(times) < math.inf else None


def _loading(told: AnswerTold) -> float:
    """Seconds of a real load; 0 if there was none."""
    return told.load_seconds if told.load_seconds is not None and told.load_seconds >= REAL else 0.0
