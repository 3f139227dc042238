# SPDX-License-Identifier: Apache-2.0
"""Style of the report. Colours follow the reader's light or dark setting."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --ground: #f6f6f4; --card: #fff; --ink: #1d2125; --soft: #5d666e; --line: #d9dcdf;
  --shade: 11, 110, 143; --warn: #a33b00;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #9a5fb8; --c4: #b58900; --c5: #c0447a;
  --c6: #3b8fb5; --c7: #6b7680; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #14171a; --card: #1d2226; --ink: #e6e9ec; --soft: #9aa5ae; --line: #343c43;
  --shade: 92, 195, 230; --warn: #ffab73;
  --c0: #53a9e8; --c1: #ff9a52; --c2: #3fcf9f; --c3: #c79be0; --c4: #e3bd4e; --c5: #f088b0;
  --c6: #7fd0ee; --c7: #aab4bd; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; margin: 0 0 .4rem; } h2 { font-size: 1.25rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; } h4 { font-size: .95rem; margin: 1.2rem 0 .3rem; }
p, ul { max-width: 54rem; margin: .5rem 0; } .soft { color: var(--soft); font-size: .875rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; color: var(--soft); }
code { font-size: .88em; }
.weak { border-left: 4px solid var(--warn); padding: .1rem 0 .1rem .9rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.25rem; margin-top: 1.5rem; }
.charts { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); }
figure { margin: 0; } .chart svg { display: block; width: 100%; height: auto; }
figcaption { font-size: .9rem; margin-bottom: .2rem; }
.grid { stroke: var(--line); stroke-width: 1; } .tick { fill: var(--soft); font-size: 12px; }
.reference { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .bar { stroke-width: 1.5; opacity: .6; } .dot { stroke: var(--card); stroke-width: 1.5; }
svg .s0 { stroke: var(--c0); } svg .s1 { stroke: var(--c1); } svg .s2 { stroke: var(--c2); }
svg .s3 { stroke: var(--c3); } svg .s4 { stroke: var(--c4); } svg .s5 { stroke: var(--c5); }
svg .s6 { stroke: var(--c6); } svg .s7 { stroke: var(--c7); }
svg .dot.s0 { fill: var(--c0); } svg .dot.s1 { fill: var(--c1); } svg .dot.s2 { fill: var(--c2); }
svg .dot.s3 { fill: var(--c3); } svg .dot.s4 { fill: var(--c4); } svg .dot.s5 { fill: var(--c5); }
svg .dot.s6 { fill: var(--c6); } svg .dot.s7 { fill: var(--c7); }
svg .dot { stroke: var(--card); }
i.s0, .fill.s0 { background: var(--c0); } i.s1, .fill.s1 { background: var(--c1); }
i.s2, .fill.s2 { background: var(--c2); } i.s3, .fill.s3 { background: var(--c3); }
i.s4, .fill.s4 { background: var(--c4); } i.s5, .fill.s5 { background: var(--c5); }
i.s6, .fill.s6 { background: var(--c6); } i.s7, .fill.s7 { background: var(--c7); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .875rem; max-width: none; }
.legend span { display: inline-flex; align-items: center; gap: .4rem; }
.legend i { width: .8rem; height: .8rem; border-radius: 3px; }
.legend i.dash { height: 0; border-top: 2px dashed var(--soft); border-radius: 0; }
.bars { display: grid; grid-template-columns: 6rem minmax(0, 34rem); gap: .6rem .8rem;
  align-items: center; font-size: .875rem; }
.bars .name { text-align: right; color: var(--soft); }
.track { position: relative; height: .62rem; margin: 2px 0; background: var(--ground);
  border-radius: 3px; }
.fill { height: 100%; border-radius: 3px; }
.range { position: absolute; top: 50%; height: 0; border-top: 1.5px solid var(--ink); opacity: .7; }
.matrices { display: flex; flex-wrap: wrap; gap: 1.4rem; margin-top: 1rem; }
.matrix table { border-collapse: collapse; font-size: .75rem; font-variant-numeric: tabular-nums; }
.matrix th { font-weight: 400; color: var(--soft); padding: .1rem .35rem; text-align: right; }
.matrix td { min-width: 2.3rem; padding: .3rem; text-align: center;
  background: rgba(var(--shade), calc(var(--v) * .75)); border: 1px solid var(--card); }
.players { display: grid; gap: .5rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); }
.players audio { width: 100%; height: 34px; display: block; }
.scroll { overflow-x: auto; margin: .6rem 0; }
.scroll table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
.scroll th, .scroll td { padding: .25rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
.scroll th { color: var(--soft); font-weight: 600; }
.scroll th:first-child, .scroll td:first-child { text-align: left; padding-left: 0; }
@media (max-width: 700px) { .bars { grid-template-columns: 4.5rem minmax(0, 1fr); } }
"""
