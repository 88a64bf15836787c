"""The command `textlora`: parse, call, print, exit code. Work is done elsewhere.

Results go to stdout, messages and progress to stderr. Heavy modules are imported by the command
that needs them, so that `--help` is quick.
"""

import gc
import io
import os
import shlex
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer

from textlora.cli.audit import audit
from textlora.cli.check import check
from textlora.cli.compare import compare
from textlora.cli.demo import demo
from textlora.cli.doctor import doctor
from textlora.cli.evaluate import evaluate
from textlora.cli.explain import explain
from textlora.cli.plan import plan
from textlora.cli.predict import predict
from textlora.cli.report import report
from textlora.cli.sweep import sweep
from textlora.cli.train import train
from textlora.errors import TextloraError, UnfinishedError

# Objects made between two searches for cycles. Imported libraries make hundreds of thousands, with
# hardly a cycle among them; looking for one at every 700th takes much of a start.
_GC_THRESHOLD = 200_000
_INTERRUPTED = 130  # of a shell: 128 and the number of the signal

app = typer.Typer(
    name="textlora",
    help="Text classifiers from pretrained encoders and LoRA adapters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; anywhere.")] = False,  # noqa: ARG001 - read by main
) -> None:
    if version:
        from textlora import __version__

        print(__version__)
        raise typer.Exit


for _command in (  # as --help lists them
    demo,
    plan,
    check,
    audit,
    train,
    sweep,
    evaluate,
    compare,
    report,
    explain,
    predict,
    doctor,
):
    app.command()(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with 0, or with the code of the error (see `errors`)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    _quieten_libraries(debug)
    _let_threads_rest()
    _accept_all_names()
    previous, thresholds = signal.signal(signal.SIGTERM, _stop), gc.get_threshold()
    gc.set_threshold(_GC_THRESHOLD)
    try:
        code = _call([word for word in words if word != "--debug"])
    except TextloraError as error:
        code = _fail(f"{error}", error.exit_code, debug)
        if isinstance(error, UnfinishedError):
            print(f"continue with: {_format_command(words)}", file=sys.stderr)
    except typer.TyperException as error:
        code = _fail(_explain_usage(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort, _Stopped) as error:
        code = _fail("stopped", 143 if isinstance(error, _Stopped) else _INTERRUPTED, debug)
        if words[:1] in (["train"], ["predict"], ["sweep"]):
            print(f"continue with: {_format_command(words)}", file=sys.stderr)
    except BrokenPipeError:
        # The reader has gone (`| head`); the interpreter must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:  # a name that is too long, a folder that may not be entered
        reason = error.strerror or error
        code = _fail(f"{error.filename or 'file'}: {reason}; check the path", 1, debug)
    finally:
        signal.signal(signal.SIGTERM, previous)
        gc.set_threshold(*thresholds)
    sys.exit(code)


def _call(words: list[str]) -> Any:
    code = app(words, prog_name="textlora", standalone_mode=False)
    if code == _INTERRUPTED:  # Typer has caught Ctrl-C and says nothing
        raise KeyboardInterrupt
    return code


def _explain_usage(error: typer.TyperException) -> str:
    message, context = error.format_message().rstrip("."), getattr(error, "ctx", None)
    return f"{message}; see {context.command_path} --help" if message and context else message


def _quieten_libraries(debug: bool) -> None:
    # A tokenizer that was used before a fork warns on stderr; we start no workers.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not debug:  # some encoders tell how they compute, on lines of their own
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _let_threads_rest() -> None:
    """Threads that wait give their core away, unless the user has said how they wait.

    By default they turn in circles. Where anything else wants a core, the thread that the others
    wait for cannot run then, and everything takes several times as long (docs/experiments.md).
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(os.environ):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def _accept_all_names() -> None:
    """On a terminal that cannot show a sign, its number is shown."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


class _Stopped(BaseException):
    pass


def _stop(_number: int, _frame: FrameType | None) -> None:
    """What training does not handle itself: what is staged is cleared away, what is done stays."""
    raise _Stopped


def _format_command(words: list[str]) -> str:
    """The command to type again; --resume never would throw away what is to be continued."""
    kept = [word for word in words if word != "--resume=never"]
    if "--resume" in kept:
        at = kept.index("--resume")
        del kept[at : at + 2]
    return shlex.join(["textlora", *kept])


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    if message:  # none where no command was given: the help is on the screen
        print(f"textlora: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
