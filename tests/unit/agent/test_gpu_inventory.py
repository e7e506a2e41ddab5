"""What is known of GPUs that answer, fail, hang, vanish and come back."""

import pytest

from agent.gpu.inventory import GREETING_S, HUNG_S, Inventory, Remembered
from agent.gpu.messages import DriverFailed, DriverTrouble, GpuFailed, XidSeen
from tests.fakes.gpus import driver_read, gpu_read


def begun(count: int = 2, *, remembered: Remembered | None = None) -> Inventory:
    inventory = Inventory("boot-1", remembered)
    inventory.began(0.0)
    inventory.take(driver_read(count), 0.1)
    for index in range(count):
        inventory.take(gpu_read(index), 0.1)
    return inventory


def troubles(inventory: Inventory, now_s: float) -> dict[str, str]:
    return {uuid: ill.trouble for uuid, ill in inventory.view(now_s).ill.items()}


def keep(inventory: Inventory, count: int, now_s: float, *indices: int) -> None:
    inventory.take(driver_read(count), now_s)
    for index in indices:
        inventory.take(gpu_read(index), now_s)


def test_nothing_is_judged_before_all_have_spoken() -> None:
    inventory = Inventory("boot-1", None)
    inventory.began(0.0)
    assert not inventory.view(0.1).settled
    inventory.take(driver_read(2), 0.2)
    inventory.take(gpu_read(0), 0.2)
    assert not inventory.view(0.3).settled
    inventory.take(gpu_read(1), 0.3)
    view = inventory.view(0.4)
    assert view.settled
    assert [gpu.uuid for gpu in view.gpus] == ["GPU-0", "GPU-1"]
    assert view.driver.cuda == "13.0"


def test_a_gpu_that_never_speaks_is_waited_for_no_longer_than_the_greeting() -> None:
    inventory = Inventory("boot-1", None)
    inventory.began(0.0)
    inventory.take(driver_read(1), 0.2)
    assert not inventory.view(GREETING_S).settled
    assert inventory.view(GREETING_S + 0.1).settled


def test_a_gpu_that_falls_silent_hangs_and_its_old_figures_are_not_shown() -> None:
    inventory = begun()
    for second in range(1, 7):
        keep(inventory, 2, second, 0)
    assert troubles(inventory, HUNG_S) == {}
    view = inventory.view(6.0)
    assert {uuid: ill.trouble for uuid, ill in view.ill.items()} == {"GPU-1": "NVML_HUNG"}
    assert view.driver_ill is None
    assert (view.gpus[1].temperature, view.gpus[1].name) == (None, "H100")
    inventory.take(gpu_read(1), 6.5)
    assert troubles(inventory, 6.6) == {}


def test_a_driver_that_falls_silent_is_said_once() -> None:
    inventory = begun()
    view = inventory.view(GREETING_S + 1)
    assert view.driver_ill is not None
    assert view.driver_ill.trouble == "NVML_HUNG"
    assert set(view.ill.values()) == {view.driver_ill}


def test_a_greeting_that_hangs_is_the_drivers_fault() -> None:
    inventory = Inventory("boot-1", None)
    inventory.began(0.0)
    assert inventory.view(GREETING_S).driver_ill is None
    view = inventory.view(GREETING_S + 0.1)
    assert view.settled
    assert view.driver_ill is not None
    inventory.began(9.0)  # another reader does not make it well
    assert inventory.view(9.1).driver_ill is not None
    keep(inventory, 0, 9.5)
    assert inventory.view(9.6).driver_ill is None


def test_a_lost_gpu_is_lost_until_it_answers_again() -> None:
    inventory = begun()
    inventory.take(GpuFailed(index=1, uuid="GPU-1", trouble="GPU_LOST", detail="lost"), 1.0)
    keep(inventory, 2, 20.0, 0)
    inventory.take(GpuFailed(index=1, uuid="GPU-1", trouble="GPU_LOST", detail="lost"), 20.0)
    assert troubles(inventory, 20.1) == {"GPU-1": "GPU_LOST"}
    keep(inventory, 2, 21.0, 0, 1)
    assert troubles(inventory, 21.1) == {}


def test_a_gpu_that_was_lost_before_the_reader_began_is_known_by_its_place() -> None:
    remembered = begun().remembered()
    inventory = Inventory("boot-1", remembered)
    inventory.began(0.0)
    keep(inventory, 2, 0.1, 0)
    inventory.take(GpuFailed(index=1, uuid=None, trouble="GPU_LOST", detail="lost"), 0.1)
    view = inventory.view(0.2)
    assert [gpu.uuid for gpu in view.gpus] == ["GPU-0", "GPU-1"]
    assert troubles(inventory, 0.2) == {"GPU-1": "GPU_LOST"}


def test_a_gpu_nobody_ever_knew_is_shown_without_a_name() -> None:
    inventory = Inventory("boot-1", None)
    inventory.began(0.0)
    keep(inventory, 2, 0.1, 0)
    inventory.take(GpuFailed(index=1, uuid=None, trouble="GPU_LOST", detail="lost"), 0.1)
    assert troubles(inventory, 0.2) == {"unknown-1": "GPU_LOST"}


def test_a_gpu_that_is_no_longer_listed_is_missing_also_after_a_restart_and_a_boot() -> None:
    inventory = begun()
    keep(inventory, 1, 1.0, 0)
    assert troubles(inventory, 1.1) == {"GPU-1": "GPU_MISSING"}
    for boot in ("boot-1", "boot-2"):
        again = Inventory(boot, inventory.remembered())
        again.began(0.0)
        keep(again, 1, 0.1, 0)
        assert troubles(again, 0.2) == {"GPU-1": "GPU_MISSING"}


def test_a_gpu_that_moved_to_another_index_is_the_same_gpu() -> None:
    inventory = begun()
    inventory.take(driver_read(1), 1.0)
    moved = gpu_read(1).gpu
    inventory.take(
        type(gpu_read(1))(gpu=type(moved)(index=0, uuid=moved.uuid, name="H100", bus_id="")), 1.0
    )
    assert troubles(inventory, 1.1) == {"GPU-0": "GPU_MISSING"}


@pytest.mark.parametrize("trouble", ["DRIVER_MISMATCH", "NVML_ERROR", "DRIVER_NOT_LOADED"])
def test_a_driver_that_refuses_takes_all_gpus_with_it(trouble: DriverTrouble) -> None:
    inventory = begun()
    inventory.take(DriverFailed(trouble=trouble, detail="no"), 1.0)
    view = inventory.view(1.1)
    assert view.settled
    assert view.driver_ill is not None
    assert view.driver_ill.trouble == trouble
    assert [gpu.temperature for gpu in view.gpus] == [None, None]
    keep(inventory, 2, 2.0, 0, 1)
    assert inventory.view(2.1).driver_ill is None


def test_a_machine_without_gpus_is_well_without_a_driver() -> None:
    inventory = Inventory("boot-1", None, hardware=False)
    inventory.began(0.0)
    inventory.take(DriverFailed(trouble="NO_DRIVER", detail=""), 0.1)
    view = inventory.view(60.0)
    assert view.settled
    assert (view.driver_ill, view.gpus) == (None, ())
    inventory.take(DriverFailed(trouble="DRIVER_NOT_LOADED", detail=""), 0.1)
    ill = inventory.view(60.0).driver_ill
    assert ill is not None
    assert ill.trouble == "DRIVER_UNUSED"


def test_a_machine_with_gpus_is_not() -> None:
    for inventory in (Inventory("boot-1", None, hardware=True), begun()):
        inventory.began(0.0)
        inventory.take(DriverFailed(trouble="NO_DRIVER", detail=""), 0.1)
        ill = inventory.view(1.0).driver_ill
        assert ill is not None
        assert ill.trouble == "NO_DRIVER"


def test_a_reader_that_crashes_is_told_until_one_answers() -> None:
    inventory = begun()
    inventory.crashed("it ended with -11")
    ill = inventory.view(1.0).driver_ill
    assert ill is not None
    assert (ill.trouble, ill.detail) == ("NVML_CRASHED", "it ended with -11")
    keep(inventory, 2, 2.0, 0, 1)
    assert inventory.view(2.1).driver_ill is None


def test_xids_are_counted_shown_newest_last_and_outlive_a_restart_but_not_a_boot() -> None:
    inventory = begun()
    for at, xid in ((1, 79), (2, 31), (3, 79)):
        inventory.take(XidSeen(uuid="GPU-0", xid=xid, at_ns=at), 1.0)
    assert inventory.view(1.1).gpus[0].xids == (31, 79)
    assert [(x.xid, x.count, x.first_ns, x.last_ns) for x in inventory.view(1.1).xids] == [
        (31, 1, 2, 2),
        (79, 2, 1, 3),
    ]
    same = Inventory("boot-1", inventory.remembered())
    assert {x.xid for x in same.remembered().xids} == {31, 79}
    assert Inventory("boot-2", inventory.remembered()).remembered().xids == ()


def test_a_flood_of_xids_is_bounded() -> None:
    inventory = begun()
    for xid in range(200):
        inventory.take(XidSeen(uuid="GPU-0", xid=xid, at_ns=xid), 1.0)
    assert [x.xid for x in inventory.view(1.1).xids] == list(range(184, 200))
