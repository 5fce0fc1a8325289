"""The consumer alone: reads every message of a topic by the same client as Headrace, and throws it away."""

from __future__ import annotations

import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from headrace.sources import kafka_properties
from headrace.sources.kafka_url import BATCH


def main(bootstrap: str, topic: str, count: str) -> None:
    begin = time.perf_counter_ns()
    consumer = Consumer(kafka_properties.reading(bootstrap, "headrace-bench-discard", {}))
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    left = int(count)
    while left > 0:
        # The end of a partition comes as an event among the messages.
        left -= sum(message.error() is None for message in consumer.consume(BATCH, 0.1))
    seconds = (time.perf_counter_ns() - begin) / 1e9
    consumer.close()
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
