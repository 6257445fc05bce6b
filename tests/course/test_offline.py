import os
import socket
import subprocess
import sys

import pytest

from xailab.course.offline import write_hook

REFUSED = [
    "socket.create_connection(('192.0.2.1', 80), timeout=1)",
    "socket.getaddrinfo('example.com', 443)",
    "socket.gethostbyname('example.com')",
    "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
    "socket.create_connection(('2001:db8::1', 80), timeout=1)",
    "__import__('urllib.request').request.urlopen('http://example.com', timeout=1)",
    "__import__('subprocess').run([sys.executable, '-c', "
    "'import socket; socket.gethostbyname(\"example.com\")'], check=True)",
]
ALLOWED = [
    "socket.getaddrinfo('localhost', 80)",
    "socket.getaddrinfo(None, 80, flags=socket.AI_PASSIVE)",
    "socket.gethostbyname(b'127.0.0.1'.decode())",
    "socket.socketpair()",
    "socket.create_connection(server.getsockname())",
]


@pytest.fixture
def run(tmp_path):
    """Run code in an interpreter that starts with the hook."""
    write_hook(tmp_path)
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])
    env = os.environ | {"PYTHONPATH": paths}
    setup = "import socket, sys\nserver = socket.create_server(('127.0.0.1', 0))\n"

    def start(code):
        command = [sys.executable, "-c", setup + code]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    return start


@pytest.mark.parametrize("code", REFUSED)
def test_other_machines_are_out_of_reach(run, code):
    result = run(code)
    assert result.returncode != 0
    assert "NetworkForbidden: socket." in result.stderr
    assert "lessons run without network. Fetch data before (`xailab data get`)" in result.stderr


@pytest.mark.parametrize("code", ALLOWED)
def test_this_machine_stays_in_reach(run, code):
    result = run(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_unix_sockets_stay_in_reach(run, tmp_path):
    result = run(
        f"path = {str(tmp_path / 's')!r}\n"
        "listener = socket.socket(socket.AF_UNIX); listener.bind(path); listener.listen()\n"
        "socket.socket(socket.AF_UNIX).connect(path)"
    )
    assert result.returncode == 0, result.stderr
