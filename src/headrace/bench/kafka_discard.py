"""The consumer alone: reads every message of a topic by the same client as Headrace, and throws it away."""

from __future__ import annotations

import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

_AT_ONCE = 10_000


def main(bootstrap: str, topic: str, count: str) -> None:
    begin = time.perf_counter_ns()
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "headrace-bench-discard", "enable.auto.commit": False}
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    left = int(count)
    while left > 0:
        left -= len(consumer.consume(_AT_ONCE, 1.0))
    seconds = (time.perf_counter_ns() - begin) / 1e9
    consumer.close()
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
