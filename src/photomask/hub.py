"""Fetches files from the Hugging Face hub and sends files to it. Every failure says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from photomask.dependencies import OptionalPackage
from photomask.documents import DOCUMENT_BYTES
from photomask.errors import ExportError, PhotomaskError, UsageError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_FILES = (".json", ".safetensors")


def is_hub_name(text: str) -> bool:
    """Returns whether a text can be the name of a repository on the hub, such as `owner/name`.

    The name of a JSON or tensor file is none, so that a mistyped file is not looked up on the hub.
    """
    return _NAME.fullmatch(text) is not None and not text.endswith(_FILES)


def fetch_file(name: str, file: str, revision: str | None = None) -> Path:
    """Returns a file of a repository in the cache of huggingface_hub, and downloads it if needed.

    The environment variables of huggingface_hub apply: `HF_HOME`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`,
    `HF_TOKEN`. Without a connection, the version in the cache is taken.

    Args:
        name: the name of the repository, `owner/name`.
        file: the name of the file in it.
        revision: a branch, a tag or a commit; None for the main branch.

    Raises:
        UsageError: there is no such repository, revision or file, it may not be read, it is too
            large, or the hub cannot be reached and the file is not in the cache.
        MissingDependencyError: huggingface_hub is not installed.
    """
    hub = _package()
    try:
        found = hub.hf_hub_download(name, file, revision=revision, dry_run=True)
        if found.file_size > DOCUMENT_BYTES:
            raise UsageError(
                f"{file} of {name} on the hub holds {found.file_size:,} bytes, but at most "
                f"{DOCUMENT_BYTES:,} are read from a file of this kind"
            )
        return Path(hub.hf_hub_download(name, file, revision=revision))
    except PhotomaskError:
        raise
    except Exception as error:
        # Errors of HTTP, of the file system and of huggingface_hub have no common base class.
        reason = _reason(hub.errors, error, name, file, revision)
        raise UsageError(f"cannot fetch {file} of {name} from the hub: {reason}") from error


def send_files(
    name: str,
    files: Mapping[str, bytes],
    *,
    private: bool | None,
    message: str,
    may_replace: Callable[[str, Path], bool],
) -> str:
    """Commits files to a repository on the hub, and creates the repository if there is none.

    All other files of the repository stay as they are. If somebody else commits meanwhile, nothing
    is sent.

    Args:
        name: the name of the repository, `owner/name`.
        files: the content of each file by its name.
        private: whether a repository that is created is private; None for the default of its owner.
        message: the message of the commit.
        may_replace: a function that is called with the name of a file that is already in the
            repository, and with the path of a copy of it. The file is replaced if the result is
            true, and stays as it is otherwise.

    Returns:
        The address of the commit.

    Raises:
        UsageError: the name cannot be the name of a repository, or a file that is already there
            cannot be read.
        ExportError: the hub refuses the commit or cannot be reached.
        MissingDependencyError: huggingface_hub is not installed.
    """
    if not is_hub_name(name):
        raise UsageError(f"{name!r} is no name of a repository on the hub; expected owner/name")
    hub = _package()
    try:
        api = hub.HfApi()
        name = api.create_repo(name, private=private, exist_ok=True).repo_id
        before = api.model_info(name)
        present = {sibling.rfilename for sibling in before.siblings or ()}
        operations = [
            hub.CommitOperationAdd(path_in_repo=file, path_or_fileobj=content)
            for file, content in files.items()
            if file not in present or may_replace(file, fetch_file(name, file, before.sha))
        ]
        commit = api.create_commit(
            name, operations=operations, commit_message=message, parent_commit=before.sha
        )
    except PhotomaskError:
        raise
    except Exception as error:
        # As above, there is no common base class.
        reason = _reason(hub.errors, error, name, "", None)
        raise ExportError(f"cannot send {', '.join(files)} to {name}: {reason}") from error
    return commit.commit_url


def _package() -> Any:
    with OptionalPackage("huggingface-hub", "attention", "the Hugging Face hub"):
        import huggingface_hub
        import huggingface_hub.errors
    return huggingface_hub


def _reason(errors: Any, error: Exception, name: str, file: str, revision: str | None) -> str:
    """Returns what an error of huggingface_hub means and what to do, in one sentence."""
    said = " ".join(str(error).split()).rstrip(".")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"{name} is gated: ask for access on its page, then log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no repository {name}, or it is private: check the name, and log in with "
            "`hf auth login` if it is yours"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision!r}; expected a branch, a tag or a commit"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            "the hub cannot be reached, and the file is not in the cache of huggingface_hub: check "
            "the connection, HF_ENDPOINT and HF_HUB_OFFLINE, or give the path of a file"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"{name} has no file {file} in revision {revision or 'main'}"
    if isinstance(error, errors.HFValidationError):
        return f"the name is not valid; expected owner/name ({said})"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it to use the hub"
    if isinstance(error, errors.LocalTokenNotFoundError) or status == 401:
        return "there is no valid token: log in with `hf auth login`, or set HF_TOKEN"
    if status == 403:
        return f"the token may not do this: use one with write access to {name} ({said})"
    if status in (409, 412):
        return f"somebody else has changed {name} meanwhile: try again ({said})"
    return f"{type(error).__name__}: {said}. Check the connection and HF_ENDPOINT, and try again"
