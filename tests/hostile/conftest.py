"""One undisturbed run serves all suites that compare with it."""

from __future__ import annotations

import pytest

from tests.hostile.runs import Undisturbed, server


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(server(), tmp_path_factory.mktemp("undisturbed"))
