import picture_server
import pytest


@pytest.fixture
def serve():
    with picture_server.serving({}) as server:
        yield server
