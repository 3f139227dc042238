# SPDX-License-Identifier: Apache-2.0
"""Style and script of the page. Colours follow the reader's light or dark setting."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f6f4; --card: #ffffff; --ink: #1d2125; --soft: #5d666e; --line: #d9dcdf;
  --accent: #0b6e8f; --low: #c2500a; --high: #0b7fa8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171a; --card: #1d2226; --ink: #e6e9ec; --soft: #9aa5ae; --line: #343c43;
    --accent: #5cc3e6; --low: #ff9a52; --high: #53c1ea;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 1240px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 0 0 .15rem; }
h3 { font-size: .95rem; margin: 1.4rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--accent); }
.soft, figcaption, .credit { color: var(--soft); font-size: .875rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.25rem; margin-top: 1.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .925rem; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; color: var(--soft); }
tr.new td { border-top: 2px solid var(--line); }
blockquote { margin: .3rem 0 1rem; font-size: 1.05rem; font-style: italic; max-width: 46rem; }
.cards { display: grid; gap: .9rem; grid-template-columns: repeat(5, minmax(0, 1fr)); }
@media (max-width: 1080px) { .cards { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
@media (max-width: 700px) { .cards { grid-template-columns: minmax(0, 1fr); } }
.card h4 { margin: 0 0 .35rem; font-size: .95rem; display: flex;
  justify-content: space-between; gap: .5rem; align-items: baseline; }
.card h4 span { font-weight: 400; color: var(--soft); font-size: .8rem; }
.card audio { width: 100%; height: 36px; display: block; margin-top: .45rem; }
.card dl { display: grid; grid-template-columns: 1fr auto; margin: .5rem 0 0; gap: 0 .5rem;
  font-size: .83rem; font-variant-numeric: tabular-nums; }
.card dt { color: var(--soft); } .card dd { margin: 0; text-align: right; }
.picture { position: relative; border-radius: 6px; overflow: hidden; background: #000004; }
.picture img { display: block; width: 100%; height: 132px; }
.head { position: absolute; top: 0; bottom: 0; left: 0; width: 2px; background: #fff;
  box-shadow: 0 0 0 .5px #0008; display: none; pointer-events: none; }
.axis { position: absolute; left: 5px; font-size: .68rem; line-height: 1; color: #fff;
  text-shadow: 0 0 3px #000, 0 0 3px #000; pointer-events: none; }
figure { margin: 1.2rem 0 0; }
figcaption { margin-top: .5rem; max-width: 60rem; }
.tracks { display: grid; grid-template-columns: 5.2rem minmax(0, 1fr) 5.6rem; gap: .75rem .6rem;
  font-size: .8rem; }
.tracks .name { text-align: right; color: var(--soft); align-self: center; line-height: 1.25; }
.tracks .box { position: relative; border-radius: 5px; overflow: hidden; }
.tracks .tokens img { display: block; width: 100%; height: 112px; image-rendering: pixelated; }
.tracks .contour { height: 112px; border: 1px solid var(--line); border-radius: 5px; }
.tracks svg { display: block; width: 100%; height: 100%; }
.contour path { fill: none; stroke-width: 1.6; vector-effect: non-scaling-stroke;
  stroke-linejoin: round; stroke-linecap: round; }
.tokens i { position: absolute; left: 0; right: 0; height: 0; border-top: 2px solid var(--card); }
.side { position: relative; color: var(--soft); }
.side span { position: absolute; left: 0; transform: translateY(-100%); white-space: nowrap;
  line-height: 1.15; }
.legend { display: flex; flex-direction: column; justify-content: center; gap: .15rem; }
.legend b { font-weight: 600; }
.key-o { color: var(--ink); } .key-l { color: var(--low); } .key-h { color: var(--high); }
.time { display: flex; justify-content: space-between; color: var(--soft); }
@media (max-width: 700px) { .tracks { grid-template-columns: 3.6rem minmax(0, 1fr) 4.6rem; } }
"""

SCRIPT = """
const players = [...document.querySelectorAll('audio')];
for (const player of players) {
  const section = player.closest('section');
  const heads = [player.closest('.card').querySelector('.head'),
                 ...section.querySelectorAll('.tracks .head')];
  const draw = () => {
    const place = player.duration ? player.currentTime / player.duration : 0;
    for (const head of heads) {
      head.style.display = player.paused ? 'none' : 'block';
      head.style.left = 'calc(' + 100 * place + '% - 1px)';
    }
    if (!player.paused) requestAnimationFrame(draw);
  };
  player.addEventListener('play', () => {
    for (const other of players) if (other !== player) other.pause();
    draw();
  });
  player.addEventListener('pause', draw);
}
"""
