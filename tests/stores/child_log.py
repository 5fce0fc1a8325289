"""Run by the tests as a process of its own: appends to a log until it is killed, saying what was acknowledged."""

import resource
import sys
import threading
from pathlib import Path

import polars as pl

from headrace.errors import StorageError
from headrace.stores.disk import is_full
from headrace.stores.log import FileLog


def push_until_killed(folder: Path, threads: int) -> None:
    """Each line is "position value": the record that holds `value` is stored at `position`."""
    saying = threading.Lock()

    def work(number: int) -> None:
        value = number
        while True:
            position = log.append("s", pl.DataFrame({"v": [value]}), value)
            with saying:
                sys.stdout.write(f"{position} {value}\n")
                sys.stdout.flush()
            value += threads

    log = FileLog(folder, lambda _: None, segment_bytes=20_000)
    for number in range(threads):
        threading.Thread(target=work, args=(number,)).start()


def fill_disk(folder: Path, limit: int) -> None:
    """Append under a limit on file sizes until it is met, then once more with the limit lifted."""
    delivered: list[int] = []
    log = FileLog(folder, lambda record: delivered.append(record.position))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    frame = pl.DataFrame({"v": range(1_000)})
    while True:
        before = log.position
        try:
            log.append("s", frame, 0)
        except StorageError as error:
            sys.stdout.write(f"{before} {is_full(error)} {error}\n")
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    sys.stdout.write(f"{log.append('s', frame, 0)}\n{delivered}\n")
    log.close()


if __name__ == "__main__":
    {"push": push_until_killed, "fill": fill_disk}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
