"""All errors that Photomask raises on purpose.

`PhotomaskError` is the base class of all of them. The message of an error says what was found, what
was expected, where, and what to do::

    PhotomaskError
    ├── UsageError                 an argument, path or option that cannot be right
    │   └── OrderError                 functions of a prepared model are called in a wrong order
    ├── MissingDependencyError     an optional package is absent; the error names the install line
    ├── BrokenDependencyError      an optional package is installed, and its import fails
    ├── DataError                  NaN, infinity, wrong shape or dtype, or no data at all
    ├── CaptureError               torch.export cannot capture the model
    │   └── UnsupportedOperatorError   operators are not supported; the error names all of them
    ├── RecipeError                a rule that matches nothing, an impossible request
    ├── QuantizerError             a quantizer breaks its contract, or was never calibrated
    ├── PruningError               a pruner breaks its contract, or a pattern does not fit a weight
    ├── OperatorError              the class of an operator lacks a declaration
    ├── TrainingError              a loss that is not finite, or a checkpoint of another run
    ├── TargetError                the target cannot hold what the program needs
    ├── LayoutError                it is not certain which token belongs to which image
    ├── PlanError                  a plan of another model, or a request that no plan can meet
    ├── DocumentError              a file that is truncated, altered, or of another schema
    ├── ExportError                an export that could not be written whole
    │   └── FormError                  steps that a form cannot express; the error names all of them
    └── EngineError                a compiler, a runtime or a simulator failed
"""


class PhotomaskError(Exception):
    """The base class of all errors that Photomask raises on purpose."""


class UsageError(PhotomaskError):
    """An argument, path or option that cannot be right."""


class MissingDependencyError(PhotomaskError):
    """An optional package is not installed. The message names the command that installs it."""

    def __init__(self, package: str, install: str, purpose: str):
        """Makes the message.

        Args:
            package: the name of the distribution.
            install: an extra of Photomask (`report`), or the arguments of `pip install`.
            purpose: the thing that needs the package. It is the subject of the message.
        """
        arguments = f"'photomask[{install}]'" if install.isidentifier() else install
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install {arguments}"
        )


class BrokenDependencyError(PhotomaskError):
    """An optional package is installed, but its import fails. The message contains its error."""

    def __init__(self, package: str, purpose: str, error: BaseException):
        """Makes the message.

        Args:
            package: the name of the distribution.
            purpose: the thing that needs the package. It is the subject of the message.
            error: the error that the import raised. The message also contains its first cause.
        """
        first = error
        while (cause := first.__cause__ or first.__context__) is not None:
            first = cause
        said = f"{type(error).__name__}: {error}"
        if first is not error:
            said += f" (first of all {type(first).__name__}: {first})"
        super().__init__(
            f"{purpose} needs the package {package!r}, which is installed but cannot be imported: "
            f"{said}. Reinstall it, or install versions that fit each other"
        )


class DataError(PhotomaskError):
    """NaN, infinity, wrong shape or dtype, or no data at all."""


class CaptureError(PhotomaskError):
    """`torch.export` cannot capture the model, or the captured graph does not equal it."""


class UnsupportedOperatorError(CaptureError):
    """Operators are not supported. The message lists all of them with their source lines."""


class RecipeError(PhotomaskError):
    """A rule that matches nothing, or a request that cannot be met."""


class QuantizerError(PhotomaskError):
    """A quantizer breaks its contract, or it was never calibrated."""


class PruningError(PhotomaskError):
    """A pruner breaks its contract, or a pattern or a mask does not fit a weight."""


class OperatorError(PhotomaskError):
    """The class of an integer operator or of a float operation lacks a declaration."""


class OrderError(UsageError, QuantizerError):
    """The functions of a prepared model were called in a wrong order."""


class TrainingError(PhotomaskError):
    """A loss or gradient is not finite, or weights or a checkpoint belong to another run."""


class TargetError(PhotomaskError):
    """The target cannot hold what the program needs."""


class LayoutError(PhotomaskError):
    """It is not certain which token of a prompt belongs to which image."""


class PlanError(PhotomaskError):
    """A plan belongs to another model, or no plan can meet a request."""


class DocumentError(PhotomaskError):
    """A saved document is truncated, altered, or of another schema."""


class ExportError(PhotomaskError):
    """An export could not be written whole."""


class FormError(ExportError):
    """A form cannot express some steps of a program, or it breaks the contract of forms."""


class EngineError(PhotomaskError):
    """A compiler, a runtime or a simulator that runs a program failed, or it is not installed."""
