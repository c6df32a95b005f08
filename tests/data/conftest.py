import pytest


@pytest.fixture(autouse=True)
def surroundings(own_cache):
    """Of every test here."""
