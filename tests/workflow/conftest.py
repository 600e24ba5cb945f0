import pytest

from workflow_study import Study


@pytest.fixture
def study(tmp_path) -> Study:
    """An empty study in a folder of its own."""
    return Study(tmp_path)
