# SPDX-License-Identifier: Apache-2.0
"""What a multiprocessor can hold, and peaks of GPUs as their makers publish them.

Limits of NVIDIA: CUDA C++ Programming Guide, table of technical specifications by compute
capability. Limits of gfx942: AMD CDNA 3 instruction set architecture guide. Peaks: the data sheets.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one multiprocessor (compute unit on AMD).

    Attributes:
        partitions: parts with a scheduler and registers of their own.
        warps, programs: most that are resident.
        registers: 32-bit ones of one partition.
        register_unit: registers are handed to a warp in multiples of this, by thread.
        shared: bytes; ``shared_reserved`` of them go to the system for each program, and the rest
            is handed out in multiples of ``shared_unit``.
        lanes: float32 multiply-adds a cycle.
    """

    warp: int
    partitions: int
    warps: int
    programs: int
    registers: int
    register_unit: int
    shared: int
    shared_reserved: int
    shared_unit: int
    lanes: int

    def resident(self, warps: int, registers: int, shared: int) -> int:
        """Programs of ``warps`` warps that fit at once.

        Args:
            registers: of a thread.
            shared: bytes of a program.
        """
        a_thread = -(-max(registers, 1) // self.register_unit) * self.register_unit
        by_registers = self.registers // (a_thread * self.warp) * self.partitions // warps
        taken = -(-(shared + self.shared_reserved) // self.shared_unit) * self.shared_unit
        by_shared = self.shared // taken if taken else self.programs
        return max(0, min(self.programs, self.warps // warps, by_registers, by_shared))


def _nvidia(warps: int, programs: int, shared_kb: int, lanes: int) -> Multiprocessor:
    return Multiprocessor(
        warp=32, partitions=4, warps=warps, programs=programs, registers=16384, register_unit=8,
        shared=shared_kb * 1024, shared_reserved=1024, shared_unit=128, lanes=lanes,
    )  # fmt: skip


MULTIPROCESSORS = {
    "sm_80": _nvidia(64, 32, 164, 64),
    "sm_86": _nvidia(48, 16, 100, 128),
    "sm_89": _nvidia(48, 24, 100, 128),
    "sm_90": _nvidia(64, 32, 228, 128),
    "sm_100": _nvidia(64, 32, 228, 128),
    "sm_120": _nvidia(48, 24, 100, 128),
    "gfx942": Multiprocessor(
        warp=64, partitions=4, warps=32, programs=32, registers=512 * 64, register_unit=8,
        shared=65536, shared_reserved=0, shared_unit=512, lanes=128,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """Peaks of a whole GPU.

    Attributes:
        clock_ghz: boost clock.
        bandwidth: bytes a second of its memory.
    """

    name: str
    architecture: str
    multiprocessors: int
    clock_ghz: float
    bandwidth: float

    @property
    def limits(self) -> Multiprocessor:
        return MULTIPROCESSORS[self.architecture]

    @property
    def fma_rate(self) -> float:
        """Float32 multiply-adds a second."""
        return self.multiprocessors * self.limits.lanes * self.clock_ghz * 1e9

    @property
    def issue_rate(self) -> float:
        """Instructions of a warp a second."""
        return self.multiprocessors * self.limits.partitions * self.clock_ghz * 1e9


# One GPU for each architecture that is compiled for.
GPUS = {
    gpu.architecture: gpu
    for gpu in (
        Gpu("A100 SXM 80 GB", "sm_80", 108, 1.41, 2.039e12),
        Gpu("H100 SXM", "sm_90", 132, 1.98, 3.35e12),
        Gpu("B200", "sm_100", 148, 1.97, 8.0e12),
        Gpu("RTX 5090", "sm_120", 170, 2.41, 1.792e12),
        Gpu("MI300X", "gfx942", 304, 2.1, 5.3e12),
    )
}
