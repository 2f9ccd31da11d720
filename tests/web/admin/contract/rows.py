"""All rows: importing the rooms fills the table."""

from __future__ import annotations

from tests.web.admin.contract import breakers, figures, history, models, recoveries, servers, settings
from tests.web.admin.contract.here import ROWS

__all__ = ["ROWS", "breakers", "figures", "history", "models", "recoveries", "servers", "settings"]
