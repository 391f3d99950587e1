"use strict";
// All text comes from the daemon and goes in as text, never as markup: file names are anybody's.
const at = (id) => document.getElementById(id);
const make = (tag, text, cls) => {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (cls) e.className = cls;
  return e;
};
const size = (n) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return (i && n < 10 ? n.toFixed(1) : Math.round(n)) + " " + units[i];
};
const span = (s) => s < 60 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : s < 172800 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " d";
const bad = ["down", "full", "refused"], waits = ["waiting", "unchecked"];

function place(title, lines, state) {
  const p = make("div", undefined, "place" + (bad.includes(state) ? " bad" : waits.includes(state) ? " wait" : ""));
  p.append(make("b", title));
  for (const l of lines) if (l) p.append(make("div", l));
  return p;
}

function storePlace(st, v) {
  const lag = st.lag_batches > 0 ? `${st.lag_batches} behind${st.lag_seconds > 0 ? ", " + span(st.lag_seconds) : ""}` : "";
  const left = st.lag_files ? `${st.lag_files} files, ${size(st.lag_bytes)} to go` : st.lag_bytes ? `${size(st.lag_bytes)} to go` : "";
  const rate = st.rate >= 1 ? `${size(st.rate)}/s${st.lag_bytes && st.state !== "waiting" && !bad.includes(st.state) ? `, about ${span(st.lag_bytes / st.rate)}` : ""}` : "";
  const used = st.kind === "own" && v.spool.cap > 0 ? `${size(v.spool.bytes)} of ${size(v.spool.cap)}` : "";
  return place(`${st.name} (${st.kind})`, [`batch ${st.batch}`, lag, left, rate, used, st.state], st.state);
}

function drawVolume(v) {
  const box = make("article");
  box.append(make("h2", `${v.volume}: ${v.role} ${v.node}, epoch ${v.epoch}, head batch ${v.head_batch}${v.complete ? "" : ", incomplete"}`));
  const line = make("div", undefined, "pipeline");
  const column = (places) => { if (places.length) { const c = make("div", undefined, "column"); c.append(...places); line.append(c); } };
  if (v.role === "primary") {
    const p = v.pending;
    column([place("pending", [`${p.files} files, ${size(p.bytes)}`, p.files ? `oldest ${span(p.oldest_seconds)}` : ""], p.files ? "waiting" : "ok")]);
  }
  for (const kind of ["own", "replica", "cache", "backup"]) column((v.stores || []).filter((s) => s.kind === kind).map((s) => storePlace(s, v)));
  box.append(line);
  if (v.sender && v.sender.node) {
    const s = v.sender;
    box.append(make("div", `sender: ${s.node}, ${s.state || "idle"}${s.batch ? `, batch ${s.batch}: ${s.shards || 0} of ${s.of || 0} shards` : ""}${s.rate ? `, ${size(s.rate)}/s` : ""}`));
  }
  if (v.switch_off) box.append(make("div", `safe to switch off? ${v.switch_off.safe ? "yes" : "no"}: ${v.switch_off.why}`, v.switch_off.safe ? "good" : "wait-text"));
  const notes = make("ul");
  for (const st of v.stores || []) if (st.error) notes.append(make("li", `${st.name}: ${st.error}`, "bad-text"));
  for (const st of v.stores || []) if (st.waits_for && !st.error) notes.append(make("li", `${st.name}: waits for ${st.waits_for}`, "wait-text"));
  const errors = (v.alarms || []).filter((a) => a.level === "error").map((a) => a.message);
  for (const e of errors) notes.append(make("li", e, "bad-text"));
  for (const d of v.drills || []) notes.append(make("li", `last drill: ${d.passed ? "passed" : "failed"} ${span((Date.now() - new Date(d.at)) / 1000)} ago, ${d.seconds.toFixed(1)} s, from ${d.store}`, d.passed ? "" : "bad-text"));
  for (const w of (v.warnings || []).filter((w) => !errors.includes(w) && !(v.stores || []).some((st) => bad.includes(st.state) && st.error && st.error.startsWith(w)))) notes.append(make("li", w, "wait-text"));
  if (v.waiting) notes.append(make("li", v.waiting, "wait-text"));
  if (notes.childElementCount) box.append(notes);
  return box;
}

let heads = "";
function draw(p) {
  const volumes = p.volumes || [];
  at("volumes").replaceChildren(...volumes.map(drawVolume));
  const troubles = [...(p.stalled || []), ...volumes.flatMap((v) => (v.stores || []).filter((s) => bad.includes(s.state)).map((s) => `${s.name} is ${s.state}`))];
  if (p.error) troubles.unshift(`the daemon does not answer: ${p.error}`);
  const warnings = volumes.reduce((n, v) => n + (v.warnings || []).length, 0);
  at("verdict").textContent = troubles.length ? troubles.join("; ") : "all is well" + (warnings ? `, ${warnings} to look at` : "");
  at("verdict").className = troubles.length ? "bad-text" : warnings ? "wait-text" : "good";
  const select = at("volume"), names = volumes.map((v) => v.volume);
  if ([...select.options].map((o) => o.value).join() !== names.join()) select.replaceChildren(...names.map((n) => make("option", n)));
  const now = JSON.stringify(volumes.map((v) => [v.head_batch, (v.stores || []).map((s) => s.batch)]));
  if (now !== heads) { heads = now; listBatches(); }
}

async function listBatches() {
  const volume = at("volume").value;
  if (!volume) return;
  const r = await fetch("batches?volume=" + encodeURIComponent(volume));
  if (!r.ok) return at("batches").replaceChildren(make("tr", await r.text()));
  const rows = (await r.json()) || [];
  at("batches").replaceChildren(...rows.reverse().map((b) => {
    const tr = make("tr");
    for (const text of [b.seq, new Date(b.sealed_at).toLocaleString(), b.files, size(b.bytes), b.shards, b.stage + (b.held ? ", held" : ""), b.copies, (b.stores || []).join(" ")]) tr.append(make("td", text));
    return tr;
  }));
}

at("volume").addEventListener("change", listBatches);
at("lookup").addEventListener("submit", async (e) => {
  e.preventDefault();
  const r = await fetch("explain?path=" + encodeURIComponent(at("path").value));
  if (!r.ok) { at("explained").textContent = await r.text(); return; }
  const x = await r.json();
  at("explained").textContent = `${x.path || "the volume's own directory"}: ${x.stage}${x.batch ? `, batch ${x.batch}` : ""}, on ${x.copies} backup ${x.copies === 1 ? "host" : "hosts"}` +
    (x.waiting_for ? `; ${x.waiting_for}` : "") +
    (x.reached || []).map((r) => `; ${r.stage}${r.store ? ` (${r.store})` : ""} ${new Date(r.at).toLocaleString()}`).join("");
});

const events = new EventSource("events");
events.onmessage = (e) => draw(JSON.parse(e.data));
events.onerror = () => { at("verdict").textContent = "no connection to the daemon"; at("verdict").className = "bad-text"; };
