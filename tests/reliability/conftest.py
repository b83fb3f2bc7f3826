"""What several of the guarantees are measured against."""

import pytest
from tests.reliability import tiny
from tests.reliability.tiny import uninterrupted


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The outcome of the tiny run when nothing interrupts it."""
    return uninterrupted(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The outcome of one that exports."""
    return uninterrupted(tmp_path_factory.mktemp("exported"), tiny.FORMAT)
