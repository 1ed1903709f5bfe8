"""Every error that Photomask raises on purpose.

Catching `PhotomaskError` catches them all; each says what was found, what was expected, where, and
what to do::

    PhotomaskError
    ├── UsageError                 an argument, path or option that cannot be right
    │   └── OrderError                 functions of a prepared model called in a wrong order
    ├── MissingDependencyError     an optional package is absent; names the install line
    ├── BrokenDependencyError      an optional package is installed, and its import fails
    ├── DataError                  NaN, infinity, wrong shape or dtype, or no data at all
    ├── CaptureError               torch.export cannot capture the model
    │   └── UnsupportedOperatorError   operators outside the set, all of them at once
    ├── RecipeError                a rule that matches nothing, an impossible request
    ├── QuantizerError             a quantizer breaks its contract, or was never calibrated
    ├── OperatorError              an operator does not say all that is asked of it
    ├── TrainingError              a loss that is not finite, or a checkpoint of another run
    ├── TargetError                the target cannot hold what the program needs
    ├── LayoutError                which token belongs to which image cannot be told
    ├── PlanError                  a plan of another model, or a request no plan can meet
    ├── DocumentError              a file that is truncated, altered, or of another schema
    ├── ExportError                an export that could not be written whole
    │   └── FormError                  steps that a form cannot express, all of them at once
    └── EngineError                a compiler, a runtime or a simulator failed
"""


class PhotomaskError(Exception):
    """Base of every error raised on purpose."""


class UsageError(PhotomaskError):
    """An argument, path or option that cannot be right."""


class MissingDependencyError(PhotomaskError):
    """An optional package is absent; the message names the install line."""

    def __init__(self, package: str, install: str, purpose: str):
        """Says what is missing.

        Args:
            package: the distribution's name.
            install: an extra of Photomask (`report`), or the arguments of `pip install`.
            purpose: what needs it.
        """
        arguments = f"'photomask[{install}]'" if install.isidentifier() else install
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install {arguments}"
        )


class BrokenDependencyError(PhotomaskError):
    """An optional package is installed, but its import fails; the message has the package's own."""

    def __init__(self, package: str, purpose: str, error: BaseException):
        """Says what the package said.

        Args:
            package: the distribution's name.
            purpose: what needs it.
            error: that its import raised; what caused it first is told too.
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
    """Operators outside the supported set; the message lists every one with its source line."""


class RecipeError(PhotomaskError):
    """A rule that matches nothing, or a request that cannot be met."""


class QuantizerError(PhotomaskError):
    """A quantizer breaks its contract or was never calibrated."""


class OperatorError(PhotomaskError):
    """The class of an integer operator, or of a float operation, does not say all that is asked."""


class OrderError(UsageError, QuantizerError):
    """A function of a prepared model was called before, or after, one that must come first."""


class TrainingError(PhotomaskError):
    """A loss or gradient is not finite, or weights or a checkpoint are of another run."""


class TargetError(PhotomaskError):
    """The target cannot hold what the program needs."""


class LayoutError(PhotomaskError):
    """Which token of a prompt belongs to which image cannot be told."""


class PlanError(PhotomaskError):
    """A plan of another model, or a request that no plan can meet."""


class DocumentError(PhotomaskError):
    """A saved document is truncated, altered, or of another schema."""


class ExportError(PhotomaskError):
    """An export that could not be written whole."""


class FormError(ExportError):
    """A form cannot express these steps of a program, or breaks the contract of a form."""


class EngineError(PhotomaskError):
    """A compiler, a runtime or a simulator that runs a program failed, or is not there."""
