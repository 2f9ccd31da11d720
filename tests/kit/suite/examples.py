"""How hypothesis looks for examples: the same ones everywhere, and as long as it takes.

A failure is found by whoever makes the change, not by whoever runs the tests next. `--hypothesis-profile=explore` looks
for others.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def register_profiles() -> None:
    """Before any test is imported: what `settings` leaves open is filled in when a test is defined."""
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
    settings.register_profile("fixed", patient, derandomize=True, database=None)
    settings.register_profile("explore", patient)
    settings.load_profile("fixed")
