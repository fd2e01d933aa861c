"""Every error that a user can meet: one root, one class a category.

Each message says the condition, its cause and the remedy. Errors carry no live objects, so they can
cross process boundaries.
"""

from __future__ import annotations


class FinqaSftError(Exception):
    """Root of all errors raised on purpose; the command line prints it without a traceback."""

    exit_status = 2
    """Exit status of the command line: 2 for input to be mended, 1 for a run that failed."""


class RecipeError(FinqaSftError, ValueError):
    """A recipe cannot be read or does not hold together."""


class PluginError(FinqaSftError, RuntimeError):
    """A plugin is broken, unknown or ambiguous."""


class DataError(FinqaSftError, ValueError):
    """A data file is missing, malformed or unusable for training."""


class ProgramError(FinqaSftError, ValueError):
    """A reasoning program cannot be parsed or executed."""


class ModelError(FinqaSftError, RuntimeError):
    """A base model cannot be found, loaded or adapted."""


class HardwareError(FinqaSftError, RuntimeError):
    """The machine at hand cannot do what the recipe asks for."""


class OutputError(FinqaSftError, RuntimeError):
    """The output folder is taken, not writable or full."""


class TrainingError(FinqaSftError, RuntimeError):
    """Training began and cannot go on."""

    exit_status = 1
