"""What of a site goes beyond its entitlement, and what to do about it."""

from appliance.sync.entitlements import SiteSize, excesses
from tests.fakes.clock import START_NS
from tests.fakes.vendor import Vendor

VENDOR = Vendor("apl_1", "00" * 32)


def test_what_fits_is_not_told() -> None:
    bound = VENDOR.entitlement(
        START_NS, gpu_count=4, reserved_tokens_per_s=100, models=("llama", "qwen")
    )
    size = SiteSize(gpus=4, reserved_tokens_per_s=100, models=("qwen",))
    assert excesses(bound, size) == []


def test_limits_of_nothing_bound_nothing() -> None:
    size = SiteSize(gpus=999, reserved_tokens_per_s=10**9, models=("any",))
    assert excesses(VENDOR.entitlement(START_NS), size) == []


def test_each_excess_is_told_with_what_to_do() -> None:
    bound = VENDOR.entitlement(START_NS, gpu_count=4, reserved_tokens_per_s=100, models=("qwen",))
    size = SiteSize(gpus=5, reserved_tokens_per_s=101, models=("qwen", "llama", "phi"))
    found = {each.what: each for each in excesses(bound, size)}
    assert set(found) == {"gpus", "reserved_tokens_per_s", "models"}
    assert "5 GPUs; 4 are" in found["gpus"].message
    assert "cic node delete" in found["gpus"].next_step
    assert found["models"].message == "Not entitled: llama, phi."
