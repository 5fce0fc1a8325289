"""Quix Streams: the trailing sum by its own hopping windows, from a topic, as its documentation writes it.

Ten minutes long, a new one every minute, waiting five seconds for what is out of order. Windows of a topic that has
gone quiet never close, so every update of a window is taken and the last one counts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import uuid
from datetime import timedelta
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Sum


def event_time(value: Any, *_: Any) -> int:
    return int(value["timestamp"])


def main(bootstrap: str, topic: str, result: str, count: str) -> None:
    sums: dict[tuple[str, int], float] = {}
    with tempfile.TemporaryDirectory() as state:
        begin = time.perf_counter_ns()
        app = Application(
            broker_address=bootstrap,
            consumer_group=f"headrace-bench-{uuid.uuid4().hex}",
            auto_offset_reset="earliest",
            state_dir=state,
            use_changelog_topics=False,
            loglevel="ERROR",
        )
        events = app.topic(topic, value_deserializer="json", key_deserializer="str", timestamp_extractor=event_time)
        windows = (
            app.dataframe(events)
            .hopping_window(timedelta(minutes=10), timedelta(minutes=1), grace_ms=timedelta(seconds=5))
            .agg(total=Sum("amount"))
            .current()
        )

        def take(value: Any, key: Any, *_: Any) -> None:
            sums[key, value["start"]] = value["total"]

        windows.update(take, metadata=True)
        # It counts what comes out: an update of each of the ten windows that a message is in.
        app.run(count=10 * int(count), timeout=60)
        seconds = (time.perf_counter_ns() - begin) / 1e9
    with open(result, "w") as file:
        for (key, start), total in sums.items():
            file.write(json.dumps({"user_id": key, "start": start * 1000, "total": total}) + "\n")
    print(json.dumps({"seconds": seconds, "windows": len(sums)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
