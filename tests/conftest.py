"""What every test gets: an unexpected ERROR in the log fails the test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.kit.suite.authorities import trust_one_authority
from tests.kit.suite.cores import pytest_collection_modifyitems as pytest_collection_modifyitems
from tests.kit.suite.cores import pytest_configure as pytest_configure
from tests.kit.suite.cores import pytest_configure_node as pytest_configure_node
from tests.kit.suite.cores import pytest_runtest_protocol as pytest_runtest_protocol
from tests.kit.suite.cores import pytest_xdist_auto_num_workers as pytest_xdist_auto_num_workers
from tests.kit.suite.examples import register_profiles
from tests.kit.suite.routes import compile_when_asked
from tests.kit.suite.settled import pytest_collection_finish as pytest_collection_finish
from tests.kit.suite.settled import settled as settled

compile_when_asked()
trust_one_authority()
register_profiles()


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def expected_errors(settled: None) -> Iterator[list[str]]:
    """Append a part of each ERROR line that the test expects; any other ERROR fails it."""
    collector = _Collector()
    root = logging.getLogger()
    root.addHandler(collector)
    expected: list[str] = []
    yield expected
    root.removeHandler(collector)
    lines = [record.getMessage() for record in collector.records]
    unexpected = [line for line in lines if not any(part in line for part in expected)]
    assert not unexpected, f"unexpected ERROR in the log: {unexpected}"
    missing = [part for part in expected if not any(part in line for line in lines)]
    assert not missing, f"expected in the log, not seen: {missing}"
