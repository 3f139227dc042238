# SPDX-License-Identifier: Apache-2.0
"""The page itself: markup, style, script. Plain browser interfaces, nothing from elsewhere."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>AffectCodec</title>
<link rel="stylesheet" href="/style.css">
<link rel="icon" href="data:,">
</head>
<body>
<main>
<h1>AffectCodec</h1>
<p id="status" role="status">Connecting</p>
<section id="drop" tabindex="0" aria-label="Drop an audio file here">
<p>Drop an audio file here, <label class="button">choose one<input type="file" id="file"
accept="audio/*"></label> or <button id="record">record</button></p>
<p><button id="live">live</button> <span class="note">hear yourself coded; use headphones</span></p>
</section>
<section>
<h2>Rate <output id="rate"></output></h2>
<label>emotion stages <input type="range" id="emotion" min="0" max="8" value="4">
<output id="emotion-value">4</output></label>
<label>acoustic stages <input type="range" id="acoustic" min="0" max="8" value="4">
<output id="acoustic-value">4</output></label>
<fieldset><legend>emotion codes</legend>
<label><input type="radio" name="mode" value="keep" checked> keep</label>
<label><input type="radio" name="mode" value="strip"> strip</label>
<label><input type="radio" name="mode" value="swap"> swap for the donor's</label>
<button id="donor" disabled>make this clip the donor</button></fieldset>
</section>
<section class="pair">
<figure><figcaption>original</figcaption><audio id="original" controls></audio></figure>
<figure><figcaption>coded</figcaption><audio id="coded" controls></audio></figure>
</section>
<section>
<h2>Tokens</h2>
<figure><figcaption>emotion codes, a row a stage</figcaption>
<canvas id="emotion-codes" width="960" height="96"></canvas></figure>
<figure><figcaption>acoustic codes, a row a stage</figcaption>
<canvas id="acoustic-codes" width="960" height="96"></canvas></figure>
</section>
</main>
<script src="/app.js"></script>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; }
section { margin: 1rem 0; }
#drop { border: 2px dashed #8888; border-radius: .5rem; padding: 1rem; text-align: center; }
#drop.over { border-color: #2a7; }
#file { position: absolute; opacity: 0; width: 1px; height: 1px; }
.button, button { border: 1px solid #8888; border-radius: .3rem; padding: .2rem .6rem;
  background: none; font: inherit; color: inherit; cursor: pointer; }
label { margin-right: 1rem; } .note { opacity: .7; }
.pair { display: flex; gap: 1rem; flex-wrap: wrap; }
figure { margin: .5rem 0; } canvas { width: 100%; image-rendering: pixelated; }
#status.error { color: #c33; }
"""

SCRIPT = r"""'use strict';
const $ = id => document.getElementById(id);
const ui = { hello: null, frames: 0, codes: null, decoding: false, again: false, live: null };
const socket = new WebSocket((location.protocol === 'https:' ? 'wss://' : 'ws://') +
                             location.host + '/talk');
socket.binaryType = 'arraybuffer';
let wanted = null;  // what the next binary message is

function say(text, error) {
  $('status').textContent = text;
  $('status').classList.toggle('error', !!error);
}
function send(message) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}
function stages() {
  return { emotion: +$('emotion').value, acoustic: +$('acoustic').value };
}
function showRate() {
  const s = stages();
  for (const name of ['emotion', 'acoustic']) $(name + '-value').textContent = s[name];
  if (!ui.hello) return;
  const perSecond = ui.hello.sample_rate / ui.hello.hop / 1000;
  const strip = mode() === 'strip';
  const kbps = perSecond * ((strip ? 0 : s.emotion * ui.hello.bits.emotion) +
                            s.acoustic * ui.hello.bits.acoustic);
  $('rate').textContent = kbps.toFixed(2) + ' kbit/s';
}
function mode() { return document.querySelector('input[name=mode]:checked').value; }

function decode() {
  if (!ui.codes) return;
  if (ui.decoding) { ui.again = true; return; }
  ui.decoding = true;
  say('decoding');
  send({ op: 'decode', stages: stages(), emotion: mode() });
}
function draw(canvas, rows, codebook, active) {
  const context = canvas.getContext('2d');
  const frames = rows.length ? rows[0].length : 0;
  canvas.width = Math.max(frames, 1);
  canvas.height = Math.max(rows.length, 1);
  canvas.style.height = 14 * canvas.height + 'px';
  const image = context.createImageData(canvas.width, canvas.height);
  rows.forEach((row, k) => row.forEach((code, t) => {
    const at = 4 * (k * canvas.width + t), x = code / (codebook - 1), fade = k < active ? 255 : 50;
    image.data[at] = 255 * Math.min(1, 2 * x);
    image.data[at + 1] = 90 + 120 * Math.abs(0.5 - x);
    image.data[at + 2] = 255 * Math.min(1, 2 - 2 * x);
    image.data[at + 3] = fade;
  }));
  context.putImageData(image, 0, 0);
}
function drawCodes() {
  if (!ui.codes) return;
  const s = stages();
  draw($('emotion-codes'), ui.codes.emotion, 2 ** ui.hello.bits.emotion,
       mode() === 'strip' ? 0 : s.emotion);
  draw($('acoustic-codes'), ui.codes.acoustic, 2 ** ui.hello.bits.acoustic, s.acoustic);
}
function wav(pcm, rate) {
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, s) => [...s].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
  text(0, 'RIFF'); head.setUint32(4, 36 + pcm.byteLength, true); text(8, 'WAVEfmt ');
  head.setUint32(16, 16, true); head.setUint16(20, 1, true); head.setUint16(22, 1, true);
  head.setUint32(24, rate, true); head.setUint32(28, 2 * rate, true);
  head.setUint16(32, 2, true); head.setUint16(34, 16, true);
  text(36, 'data'); head.setUint32(40, pcm.byteLength, true);
  return new Blob([head, pcm], { type: 'audio/wav' });
}
function offer(id, pcm) {
  const player = $(id);
  if (player.src) URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(wav(pcm, ui.hello.sample_rate));
  player.dataset.samples = pcm.byteLength / 2;
}
function toPcm(samples) {
  const pcm = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; ++i)
    pcm[i] = Math.max(-32768, Math.min(32767, Math.round(32768 * samples[i])));
  return pcm;
}
async function take(data) {
  say('reading');
  try {
    const probe = new OfflineAudioContext(1, 1, ui.hello.sample_rate);
    const sound = await probe.decodeAudioData(data);  // resampled to the context's rate
    const length = Math.min(sound.length, ui.hello.max_seconds * ui.hello.sample_rate);
    const mixed = new Float32Array(length);
    for (let c = 0; c < sound.numberOfChannels; ++c) {
      const channel = sound.getChannelData(c);
      for (let i = 0; i < length; ++i) mixed[i] += channel[i] / sound.numberOfChannels;
    }
    clip(toPcm(mixed));
  } catch (error) {
    say('this file cannot be decoded here', true);
  }
}
function clip(pcm) {
  if (!pcm.length) { say('no samples', true); return; }
  offer('original', pcm);
  say('coding');
  send({ op: 'clip' });
  socket.send(pcm.buffer);
}

socket.onmessage = event => {
  if (typeof event.data !== 'string') {
    const what = wanted;
    wanted = null;
    if (ui.live) { ui.live.play(new Int16Array(event.data)); return; }
    if (what === 'audio') {
      offer('coded', event.data);
      ui.decoding = false;
      say('ready');
      if (ui.again) { ui.again = false; decode(); }
    }
    return;
  }
  const message = JSON.parse(event.data);
  if (message.op === 'hello') {
    ui.hello = message;
    for (const name of ['emotion', 'acoustic']) $(name).max = message.stages;
    showRate();
    say('ready');
  } else if (message.op === 'coded') {
    ui.codes = message.codes;
    $('donor').disabled = false;
    drawCodes();
    decode();
  } else if (message.op === 'audio') {
    wanted = 'audio';
  } else if (message.op === 'donor') {
    say('donor set');
  } else if (message.op === 'live') {
    say('live, ' + message.latency_ms + ' ms behind');
  } else if (message.op === 'error') {
    ui.decoding = false;
    say(message.text, true);
  }
};
socket.onclose = () => say('the server has gone; reload to try again', true);

for (const name of ['emotion', 'acoustic'])
  $(name).addEventListener('input', () => { showRate(); drawCodes(); });
for (const name of ['emotion', 'acoustic'])
  $(name).addEventListener('change', () => {
    if (ui.live) send({ op: 'live', stages: stages() }); else decode();
  });
document.querySelectorAll('input[name=mode]').forEach(radio =>
  radio.addEventListener('change', () => { showRate(); drawCodes(); decode(); }));
$('donor').addEventListener('click', () => send({ op: 'donor' }));
$('file').addEventListener('change', async event => {
  if (event.target.files.length) take(await event.target.files[0].arrayBuffer());
});
const drop = $('drop');
drop.addEventListener('dragover', event => { event.preventDefault(); drop.classList.add('over'); });
drop.addEventListener('dragleave', () => drop.classList.remove('over'));
drop.addEventListener('drop', async event => {
  event.preventDefault();
  drop.classList.remove('over');
  if (event.dataTransfer.files.length) take(await event.dataTransfer.files[0].arrayBuffer());
});

async function microphone(onSamples) {
  const stream = await navigator.mediaDevices.getUserMedia(
    { audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false } });
  const context = new AudioContext({ sampleRate: ui.hello.sample_rate });
  const source = context.createMediaStreamSource(stream);
  const node = context.createScriptProcessor(512, 1, 1);
  node.onaudioprocess = event => onSamples(event.inputBuffer.getChannelData(0), context);
  source.connect(node);
  node.connect(context.destination);
  return () => { stream.getTracks().forEach(track => track.stop()); context.close(); };
}
let recording = null;
$('record').addEventListener('click', async () => {
  if (recording) {
    recording.stop();
    const all = new Float32Array(recording.parts.reduce((n, p) => n + p.length, 0));
    let at = 0;
    for (const part of recording.parts) { all.set(part, at); at += part.length; }
    recording = null;
    $('record').textContent = 'record';
    clip(toPcm(all));
    return;
  }
  try {
    const parts = [];
    const stop = await microphone(samples => parts.push(new Float32Array(samples)));
    recording = { parts, stop };
    $('record').textContent = 'stop';
    say('recording');
  } catch (error) { say('no microphone', true); }
});
$('live').addEventListener('click', async () => {
  if (ui.live) {
    ui.live.stop();
    ui.live = null;
    send({ op: 'stop' });
    $('live').textContent = 'live';
    say('ready');
    return;
  }
  try {
    let output = null, due = 0, played = 0;
    const live = {
      play(pcm) {
        if (!output || !pcm.length) return;
        const buffer = output.createBuffer(1, pcm.length, ui.hello.sample_rate);
        const channel = buffer.getChannelData(0);
        for (let i = 0; i < pcm.length; ++i) channel[i] = pcm[i] / 32768;
        const node = output.createBufferSource();
        node.buffer = buffer;
        node.connect(output.destination);
        due = Math.max(due, output.currentTime + 0.02);
        node.start(due);
        due += buffer.duration;
        played += pcm.length;
        $('live').dataset.samples = played;
      },
    };
    send({ op: 'live', stages: stages() });
    ui.live = live;
    live.stop = await microphone((samples, context) => {
      output = context;
      if (ui.live) socket.send(toPcm(samples).buffer);
    });
    $('live').textContent = 'stop';
  } catch (error) {
    ui.live = null;
    send({ op: 'stop' });
    say('no microphone', true);
  }
});
showRate();
"""
