"""The GPUs of this machine: which there are, who sees them, and what is said when they are full."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.topology import Program, Role

_VARIABLE = "CUDA_VISIBLE_DEVICES"
_QUERY = "index,uuid,name,memory.free,memory.total"
_QUERY_SECS = 30.0
#: CUDA's context and TensorFlow's kernels take 0.5 to 0.9 GB before the first variable.
_LEAST_MB = 1000
_FULL = re.compile(r"OOM when allocating|out of memory|CUDA_ERROR_OUT_OF_MEMORY", re.IGNORECASE)


class Gpu(NamedTuple):
    """One GPU; its memory in MB, None if nobody knows."""

    index: str
    uuid: str
    name: str = ""
    free_mb: int | None = None
    total_mb: int | None = None


def see(devices: str) -> None:
    """Hides GPUs from a process that is to have none; others take memory as they need it.

    TensorFlow reads both variables when it first looks for devices, not when it is imported: call
    it before that, also in a process forked from one that has imported TensorFlow.

    Args:
      devices: as `Role.devices`.
    """
    if devices == "GPU":
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    else:
        os.environ[_VARIABLE] = ""


def visible(environment: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that CUDA would show to a process with this environment, as nvidia-smi knows them.

    None where there is no nvidia-smi, or it does not answer: TensorFlow will see what there is.
    """
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_SECS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = [_gpu(line) for line in done.stdout.splitlines() if line.count(",") == 4]
    if _VARIABLE not in environment:
        return found
    # CUDA counts the fastest first, nvidia-smi by bus: numbers mean the same where all are alike.
    in_order = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    known = in_order or len({gpu.name for gpu in found}) < 2
    return _chosen(found, environment[_VARIABLE], known)


def _gpu(line: str) -> Gpu:
    index, uuid, name, *memory = (part.strip() for part in line.split(","))
    return Gpu(index, uuid, name, *(int(mb) if mb.isdigit() else None for mb in memory))


def _chosen(found: Sequence[Gpu], variable: str, known: bool) -> list[Gpu]:
    """Those that the variable names: CUDA takes them up to the first that there is not."""
    chosen = []
    for entry in filter(None, map(str.strip, variable.split(","))):
        if entry.isdigit():
            gpu = next((gpu for gpu in found if gpu.index == entry), None)
            gpu = gpu if known or gpu is None else Gpu(entry, entry)
        elif entry.startswith("GPU-"):
            gpu = next((gpu for gpu in found if gpu.uuid.startswith(entry)), None)
        else:  # a part of one (MIG)
            gpu = Gpu(entry, entry) if entry.startswith("MIG-") else None
        if gpu is None:
            break
        chosen.append(gpu)
    return chosen


def share(role: Role, task: int, gpus: Sequence[Gpu]) -> dict[str, str]:
    """What a replica's environment says of GPUs: replicas of one role split them.

    Where there are more replicas than GPUs, several share one.
    """
    if role.devices != "GPU" or role.replicas == 1 or not gpus:
        return {}
    mine = gpus[task :: role.replicas] or [gpus[task % len(gpus)]]
    return {_VARIABLE: ",".join(gpu.uuid for gpu in mine)}


def of(program: Program) -> list[Gpu]:
    """The GPUs that the program's roles will see. Raises ConfigurationError as `check` does."""
    gpus = visible(os.environ) if _on_gpus(program) else []
    check(program, gpus)
    return gpus


def check(program: Program, gpus: Sequence[Gpu]) -> None:
    """Refuses GPUs that are full, and learners that could not train together on so few.

    Raises ConfigurationError.
    """
    for role in _on_gpus(program):
        if gpus and role.clusters and role.replicas > len(gpus):
            raise ConfigurationError(
                f"{role.replicas} {role.name}s train as one, each on a GPU of its own (NCCL lets "
                f"no two share one), but this machine shows {len(gpus)}: have "
                f"{len(gpus)}, with larger batches; or hide the GPUs with {_VARIABLE}=, and they "
                "train on cores"
            )
    for gpu in gpus if _on_gpus(program) else ():
        if gpu.free_mb is not None and gpu.free_mb < _LEAST_MB:
            raise ConfigurationError(
                f"GPU {gpu.index} ({gpu.name}) has {gpu.free_mb:,} of {gpu.total_mb:,} MB of "
                f"memory free, and a process of TensorFlow takes about {_LEAST_MB:,} before it "
                "begins: another process fills it, and nvidia-smi shows which; end that one, or "
                f"name other GPUs in {_VARIABLE}, or none ({_VARIABLE}=) to train on cores"
            )


def announcement(program: Program, gpus: Sequence[Gpu]) -> list[str]:
    """A line for each role that has GPUs."""
    found = ", ".join(f"{gpu.index} ({gpu.name})" if gpu.name else gpu.index for gpu in gpus)
    return [f"  GPU {found}: {role.name}" for role in _on_gpus(program) if gpus]


def _on_gpus(program: Program) -> list[Role]:
    return [role for role in program.roles if role.devices == "GPU"]


def words_of_full_memory(error: BaseException) -> str:
    """What to do about an error of a device whose memory is full; "" for any other error.

    Args:
      error: TensorFlow's ResourceExhaustedError, or what CUDA's failures become.
    """
    text = str(error)
    said = _FULL.search(text)
    if said is None or isinstance(error, MemoryError):
        return ""
    line = text[text.rfind("\n", 0, said.start()) + 1 :].partition("\n")[0].strip()
    return (
        f"a device's memory is full ({line[:300]}): another process takes it (nvidia-smi shows "
        "which), or the batch is too large: use a smaller one, fewer environments together, or "
        "compute_dtype = 'bfloat16'"
    )
