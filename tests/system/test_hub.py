import http.server
import socket
import threading
import time

import huggingface_hub.constants as hub_constants
import pytest

from textlora.system.hub import is_hub_reachable


@pytest.fixture
def online(monkeypatch):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    return lambda endpoint: monkeypatch.setattr(hub_constants, "ENDPOINT", endpoint)


class Refuse(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(401)

    def log_message(self, *arguments):
        pass


def test_any_answer_counts_as_an_answer(online):
    with http.server.HTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        online(f"http://127.0.0.1:{server.server_port}")
        assert is_hub_reachable()
        thread.join()


def test_a_closed_door_is_no_answer(online):
    online("http://127.0.0.1:9")
    assert not is_hub_reachable()
    online("not an address")
    assert not is_hub_reachable()


def test_silence_is_waited_for_five_seconds_at_most(online):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        online(f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert not is_hub_reachable()
        assert time.monotonic() - start < 8


def test_the_offline_switch_is_respected(monkeypatch, no_sockets):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    assert not is_hub_reachable()
    assert no_sockets == []
