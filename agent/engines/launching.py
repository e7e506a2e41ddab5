"""What engines that load a folder of weights are launched with: offline, own GPUs, own files."""

import socket
from pathlib import Path

from agent.engines.kind import Room
from appliance.wire.agent import DesiredReplica


def offline_environ(replica: DesiredReplica) -> dict[str, str]:
    """Nothing is asked of a hub or told to anybody, and no GPU is seen but those assigned."""
    return {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(replica.gpu_uuids),
    }


def own_folders(room: Room) -> dict[str, str]:
    """What engines compile is kept between launches, in the agent's state and nowhere else."""
    return {
        "HF_HOME": str(private_folder(room.cache / "huggingface")),
        "XDG_CACHE_HOME": str(private_folder(room.cache / "xdg")),
        "TRITON_CACHE_DIR": str(private_folder(room.cache / "triton")),
        "TORCHINDUCTOR_CACHE_DIR": str(private_folder(room.cache / "inductor")),
    }


def private_folder(path: Path) -> Path:
    """Made where it is not there, for this account alone. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def own_address(peer: str) -> str:
    """Which of our addresses leads to that host. Nothing is sent. Raises OSError: none does."""
    (family, kind, *_, address), *_ = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)
    with socket.socket(family, kind) as way:
        way.connect(address)
        name: str = way.getsockname()[0]
        return name
