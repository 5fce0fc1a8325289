"""Pushes numbered events for ever into the directory it is given, and says on its output which are acknowledged."""

import sys
from datetime import datetime

import headrace as hr


class Sale(hr.Event):
    shop: str
    number: int
    at: datetime = hr.event_time(unit="us")


app = hr.App("kill", clock="event", checkpoint="50ms")
sales = app.stream(Sale)


@app.features(sales, key="shop")
class Shop:
    """Sales of a shop."""

    count = hr.count(over="1h", every="1m")
    total = hr.sum("number", over="1h", every="1m")
    numbers = hr.distinct("number", over="1h", every="1m")


def main(path: str, first: int) -> None:
    number = first
    with app.open(path) as live:
        while True:
            rows = [
                {"shop": f"s{i % 7}", "number": i, "at": 1_700_000_000_000_000 + i}
                for i in range(number, number + 1 + number % 50)
            ]
            live.push(sales, rows)
            number += len(rows)
            print(number, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
