# SPDX-License-Identifier: Apache-2.0
"""Facts read from disassembly."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from affectcodec.kernels import objects

SASS = """
.text.kernel:
        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
.L_x_1:
        /*0010*/                   LDGSTS.E.BYPASS.LTC128B.128 [R8], desc[UR4][R2.64] ;
        /*0020*/              @!P0 LDG.E.U16 R4, desc[UR4][R2.64] ;
        /*0030*/                   FFMA R4, R4, R5, R6 ;
        /*0040*/                   FFMA2 R4, R4.F32x2.HI_LO, R5.F32x2.HI_LO, R6 ;
.L_x_0:
        /*0050*/                   STG.E.64 desc[UR4][R2.64], R4 ;
        /*0060*/               @P1 BRA `(.L_x_0) ;
        /*0070*/               @P1 BRA `(.L_x_1) ;
        /*0080*/                   STL [R1], R4 ;
        /*0090*/                   HMMA.16816.F32 R4, R4, R5, R6 ;
        /*00a0*/                   EXIT ;
"""
ASSEMBLY = """
kernel:
	global_load_dwordx4 v[0:3], v[0:1], off
.LBB0_2:                                ; %Flow
	s_nop 0
.LBB0_1:                                ; =>This Inner Loop Header: Depth=1
	buffer_load_dwordx2 v[6:7], v0, s[0:3], 0 offen
	v_mfma_f32_32x32x2_f32 v[2:17], v33, v25, v[2:17]
	v_pk_fma_f32 v[0:1], v[2:3], v[4:5], v[6:7]
	buffer_store_short v6, v0, s[0:3], 0 offen
	s_cbranch_vccz .LBB0_2
	s_cbranch_scc1 .LBB0_1
	v_mfma_f32_32x32x8_bf16 v[2:17], v[0:1], v[2:3], v[2:17]
	global_store_dword v0, v1, s[0:1]
	s_endpgm
	.section	.rodata,"a",@progbits
    .vgpr_count:     97
    .vgpr_spill_count: 1
    .private_segment_fixed_size: 8
"""


def test_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "disassemble", lambda cubin: SASS)
    used = {"REG": 90, "STACK": 16, "LOCAL": 0}
    monkeypatch.setattr(objects, "resources", lambda cubin: used)
    metadata = SimpleNamespace(shared=1024, num_warps=4)
    facts = objects.read(SimpleNamespace(asm={"cubin": b""}, metadata=metadata), "sm_90")
    assert facts.loads == {16: 2, 2: 1} and facts.stores == {8: 1}
    assert (facts.registers, facts.stack, facts.spills, facts.threads) == (90, 16, 4, 128)
    assert (facts.fma, facts.tensor_core, facts.inexact) == (3, 1, 1)
    (loop,) = facts.loops  # the innermost one alone
    assert loop.stores == {8: 1} and loop.moved == 8 and loop.instructions == 2


def test_amd() -> None:
    metadata = SimpleNamespace(shared=1024, num_warps=4)
    facts = objects.read(SimpleNamespace(asm={"amdgcn": ASSEMBLY}, metadata=metadata), "gfx942")
    assert facts.loads == {16: 1, 8: 1} and facts.stores == {4: 1, 2: 1}
    assert (facts.registers, facts.stack, facts.spills, facts.threads) == (97, 8, 4, 256)
    assert facts.tensor_core == 2 and facts.inexact == 1
    (loop,) = facts.loops  # a branch up to what follows a loop closes none
    assert loop.fma == 32 * 32 * 2 // 64 + 2 and loop.moved == 10 and loop.tensor_core == 1


def test_the_innermost_of_nested_spans() -> None:
    assert objects.innermost([(5, 30), (10, 20), (40, 50), (22, 25)]) == [
        (10, 20),
        (22, 25),
        (40, 50),
    ]
