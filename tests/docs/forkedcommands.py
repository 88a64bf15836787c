"""`textlora` and `python FILE` from a process that has imported everything and is forked for each.

Importing torch and its company takes five seconds, and the guides hold dozens of commands. The
programs that `write_programs` writes hand their words, folder, stdin, stdout and stderr to this
process. What it forks ends with the program that asked, also when that is killed. No network can be
reached.
"""

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import stat
import sys
from pathlib import Path

_POLL_S = 0.02
_PROGRAM = """\
#!{python} -IS
import json, os, socket, sys

connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
request = json.dumps([os.path.basename(sys.argv[0]), os.getcwd(), sys.argv[1:]])
socket.send_fds(connection, [request.encode()], [0, 1, 2])
answer = connection.recv(1)
sys.exit(answer[0] if answer else 137)
"""


def write_programs(folder: Path, address: str) -> None:
    """Write the programs `textlora` and `python`, which ask the process behind `address`."""
    folder.mkdir(parents=True)
    for name in ("textlora", "python"):
        program = folder / name
        program.write_text(_PROGRAM.format(python=sys.executable, address=address))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)


def serve(address: str) -> None:
    """Fork for each program that asks, until this process is ended."""
    _import_all()
    _refuse_network()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    running: dict[int, socket.socket] = {}  # by process
    while True:
        asked, _, _ = select.select([listener], [], [], _POLL_S)
        for process in list(running):
            if _has_ended(process, running[process]):
                running.pop(process).close()
        if asked:
            connection, _ = listener.accept()
            process = os.fork()
            if process == 0:
                listener.close()
                os._exit(_answer(connection))
            running[process] = connection


def _has_ended(process: int, connection: socket.socket) -> bool:
    """Tell the program behind `connection` that it may end, or end what it has left behind."""
    ended, status = os.waitpid(process, os.WNOHANG)
    if ended:
        code = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(BrokenPipeError):
            connection.send(bytes([code if code >= 0 else 128 - code]))
        return True
    asked, _, _ = select.select([connection], [], [], 0)
    if asked:  # a program says nothing more: it was killed
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    return bool(asked)


def _answer(connection: socket.socket) -> int:
    message, files, *_ = socket.recv_fds(connection, 1 << 16, 3)
    for standard, file in enumerate(files):
        os.dup2(file, standard)
    name, folder, words = json.loads(message)
    os.chdir(folder)
    code = 0
    try:
        if name == "textlora":
            from textlora.cli.main import main

            main(words)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _import_all() -> None:
    import datasets  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import peft  # noqa: F401
    import sklearn.svm  # noqa: F401
    import transformers.models.bert.modeling_bert  # noqa: F401

    import textlora

    for name in textlora.__all__:
        getattr(textlora, name)


def _refuse_network() -> None:
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX:
            raise OSError("the network is out of reach in this test")
        connect(self, address)

    socket.socket.connect = socket.socket.connect_ex = refuse


if __name__ == "__main__":
    serve(sys.argv[1])
