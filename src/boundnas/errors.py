"""The exceptions BoundNAS raises on purpose; everything else that escapes is a bug."""


class BoundNASError(Exception):
    """Base of every error that tells a user what was found, where, and what to do.

    Attributes:
        begun: Whether the run folder was there already, so that something was created.
    """

    begun = False


class ArgumentError(BoundNASError, TypeError):
    """An argument of a type that a function does not take."""


class ExtraError(BoundNASError, ImportError):
    """A library is missing that an extra of the package installs."""


class SpaceError(BoundNASError):
    """A dimension, an architecture or a search space that cannot exist."""


class ConvertError(BoundNASError):
    """A network that cannot be made elastic, or a rule for it that nothing meets."""


class CostError(BoundNASError):
    """A cost that cannot be computed, or a cost range that no architecture meets."""


class ConfigError(BoundNASError):
    """A configuration file with faults; lists all of them."""


class DataError(BoundNASError):
    """A data set that is missing, damaged or of the wrong shape."""


class TaskError(BoundNASError):
    """A task that cannot be, that cannot do what is asked of it, or whose score is no number."""


class CalibrationError(BoundNASError):
    """BatchNorm statistics that are missing or do not belong to the architecture."""


class TrainingError(BoundNASError):
    """Training that cannot start or cannot go on, such as a non-finite loss."""


class RunError(BoundNASError):
    """A run folder, checkpoint or journal that is missing, in the way or damaged."""


class RankError(BoundNASError):
    """Another of the processes that work together died or is not heard of."""


class ExportError(BoundNASError):
    """A network that cannot be extracted or written to a file."""
