"""reportgen looks inside an image classifier and writes down what it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from reportgen.job import Job as Job
    from reportgen.progress import Event as Event
    from reportgen.result import Report as Report

__version__ = "0.1.0"
__all__ = ["Event", "Job", "Report", "__version__", "audit"]


def audit(
    model: Any,
    images: Any,
    *,
    model_id: str | None = None,
    job: Job | None = None,
    progress: Callable[[Event], object] | bool = False,
    **options: Any,
) -> Report:
    """Audit an image classifier.

    Args:
        model: path of a model file, or a live `torch.nn.Module`, which is left exactly as it was.
        images: path of a folder or an image; a list of paths, PIL images, arrays; or a dataset of (tensor (C,H,W),
            label, id).
        model_id: a name under which you vouch that a live module is always the same, so that its results may be kept.
        job: a whole set of options instead of single ones.
        progress: called with an `Event` whenever there is news, in the calling thread; what it raises ends the audit
            and is raised, and what was computed stays stored. True for lines and bars on standard error, as on the
            command line.
        **options: the command line's options by their names (``preset="quick"``).

    Raises:
        ReportgenError: whatever you can mend: the error names the thing and the remedy.
    """
    from reportgen.job import Job
    from reportgen.pipeline import audit as run
    from reportgen.progress import Progress, Stopped

    told = Progress(listener=progress) if callable(progress) else Progress.on_terminal(quiet=not progress, always=False)
    try:
        return run(model, images, job or Job.from_options(options), model_id=model_id, progress=told)
    except Stopped as stopped:
        raise stopped.error from None


def __getattr__(name: str) -> Any:
    # the public classes are imported when they are used: importing the package costs nothing
    if name == "Event":
        from reportgen.progress import Event

        return Event
    if name == "Job":
        from reportgen.job import Job

        return Job
    if name == "Report":
        from reportgen.result import Report

        return Report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
