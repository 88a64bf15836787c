"""The exceptions a user may see, each with the exit code of the command that meets it.

    TextloraError            1   the run failed
    |- SettingsError         2   usage or settings
    |- DataError             3   the data
    |- ModelError            4   the encoder, the adapter or the saved run
    |- Interrupted         130   Ctrl-C, after what was done is saved
       |- Terminated       143   SIGTERM, likewise

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


class Interrupted(TextloraError):
    """The user pressed Ctrl-C."""

    exit_code = 130


class Terminated(Interrupted):
    """The process was asked to end (SIGTERM)."""

    exit_code = 143
