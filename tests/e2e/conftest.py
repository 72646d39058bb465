"""The operator, installed as users install it, and servers to drain."""

from collections.abc import Iterator

import pytest

from tests import install
from tests.estate import Estate, wait


def pytest_sessionstart(session: pytest.Session) -> None:
    if _runs(session):
        install.install()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _runs(session):
        wait("every server is gone", install.no_servers, 180)  # only the operator can let them go
        install.uninstall()


def _runs(session: pytest.Session) -> bool:
    """Whether this process runs the tests, or has others run them: one installs the operator for all."""
    return not hasattr(session.config, "workerinput") and not session.config.option.collectonly


@pytest.fixture(scope="session")
def shop() -> Iterator[Estate]:
    """A group of three servers behind one Service, for the tests that leave it as they found it."""
    with Estate("shop") as estate:
        estate.group("shop")
        estate.wait_ready("shop")
        yield estate


@pytest.fixture
def solo() -> Iterator[Estate]:
    """An empty namespace for servers of a test's own."""
    with Estate("solo") as estate:
        yield estate
