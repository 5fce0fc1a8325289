"""The contract of a view's machine, held by each kind of aggregate alone and by all of them together."""

from typing import Any, ClassVar

from payment_views import KINDS, LARGE, USERS, declare, one_of_each

from headrace.testing import MachineContract


class PaymentContract(MachineContract):
    keys: ClassVar[Any] = {"user_id": USERS, "shop": (1, 2)}
    nullable: ClassVar[Any] = ("user_id", "amount", "n", "merchant", "due")


class TestAllAtOnce(PaymentContract):
    """Every aggregate, several windows and tiles, with and without `where`, and arithmetic, in one view."""

    view = declare(
        **{f"{label}_hour": feature for label, feature in one_of_each("1h", "1m").items()},
        **{f"{label}_large": feature for label, feature in one_of_each("10m", "1m", LARGE).items()},
    )


def _one_kind(kind: str) -> type[MachineContract]:
    features = {
        f"{label}_{name}": make(over="10m", every="1m", where=where)
        for label, make in KINDS[kind].items()
        for name, where in (("all", None), ("large", LARGE))
    }
    return type(f"Test{kind.title()}", (PaymentContract,), {"view": declare(**features)})


for _kind in KINDS:
    globals()[f"Test{_kind.title()}"] = _one_kind(_kind)
