"""The exceptions a user may see, each with the exit code of the command that meets it.

    TextloraError          1   the run failed
    |- DivergedError       1   the loss is no number any more
    |- SettingsError       2   usage or settings
    |- DataError           3   the data
    |- ModelError          4   the encoder, the adapter or the saved run
    |- UnfinishedError     1   a run that failed on the way and can be continued
       |- Interrupted    130   Ctrl-C, after what was done is saved
          |- Terminated  143   SIGTERM or a closed terminal, likewise

A message is one line: `where: what is wrong, what was given; what to do`.
"""


class TextloraError(Exception):
    """Something a user can understand and mend; anything else is a bug and keeps its traceback."""

    exit_code = 1


class SettingsError(TextloraError):
    """A setting, flag or recipe that cannot be used."""

    exit_code = 2


class DataError(TextloraError):
    """Labelled or unlabelled texts that cannot be used."""

    exit_code = 3


class ModelError(TextloraError):
    """An encoder, adapter or run folder that is missing, damaged or does not fit."""

    exit_code = 4


class DivergedError(TextloraError):
    """The loss became infinite or no number; the settings are at fault, and will be again."""


class UnfinishedError(TextloraError):
    """Training could not go on; the same command continues from its last checkpoint."""


class Interrupted(UnfinishedError):
    """The user pressed Ctrl-C."""

    exit_code = 130


class Terminated(Interrupted):
    """The process was asked to end (SIGTERM), or its terminal was closed."""

    exit_code = 143


def shorten_message(error: BaseException) -> str:
    """The first line of another library's message, short enough for a line of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
