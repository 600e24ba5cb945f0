"""Exceptions a user may meet. Each says what was got, what was expected and what to do.

A message is complete in itself: the command line prints it without a traceback (see `stage.run`).
"""


class MdlatentError(Exception):
    """Base of every error caused by the user's input or surroundings, not by a defect of the program."""


class ConfigError(MdlatentError, ValueError):
    """The study's configuration or its table of simulations is wrong."""


class DataError(MdlatentError, ValueError):
    """A trajectory, topology or stored file does not hold what it must."""


class FetchError(MdlatentError, OSError):
    """A file could not be downloaded, or is not the file it should be."""


class NotFoundError(FetchError):
    """The server is there and has no such file."""


class Interrupted(MdlatentError):  # noqa: N818 (nothing went wrong)
    """The work was told to stop; it saved its state and goes on from there when run again."""


class ProcessLost(MdlatentError, RuntimeError):  # noqa: N818 (it happened elsewhere)
    """One of several processes that work together ended, or never came."""
