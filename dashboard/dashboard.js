// SPDX-License-Identifier: Apache-2.0
// The dashboard: asks the admin API every two seconds and shows what it says. Names of objects are
// hostile, so that text only ever becomes text. Numbers that are shown carry what they were made of in
// `data-value`.

const EVERY_MS = 2000;
const KEPT_MS = 3600e3;
// "Now" is an average over so long.
const NOW_MS = 10e3;
const POINTS_MAX = 240;
// The least time that is worth an axis.
const LEAST_MS = 60e3;
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);
const token = takeToken();

let samples = [];
// What the daemon's clock says beyond ours: they may be those of two machines.
let skewMs = 0;
let waits = [];
let shownMs = 300e3;
let mapPath = "/";
let usage = null;
let usageOfMounts = new Map();
let measuring = null;

// Takes the token out of the address, so that it is in no bookmark, screenshot or history.
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname);
  }
  return given ?? sessionStorage.getItem("token") ?? "";
}

async function ask(address, signal) {
  const headers = { Authorization: `Bearer ${token}` };
  const response = await fetch(address, { headers, cache: "no-store", signal });
  const body = await response.json().catch(() => null);
  if (!response.ok) {
    throw new Error(body?.error?.message ?? `${address}: ${response.status}`);
  }
  return body;
}

// ---- words -------------------------------------------------------------------------------------

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || count >= 100 ? 0 : 1;
  return `${count.toFixed(digits)} ${units[unit]}`;
}

const number = (count) => count.toLocaleString("en");
// Rounded down: 100 % is all of it.
const percent = (share) => `${(Math.floor(share * 1000) / 10).toFixed(1)} %`;
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

function time(ms) {
  if (ms === 0) return "0 s";
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  const parts = [[86400, "d"], [3600, "h"], [60, "min"]];
  const [size, word] = parts.find(([size]) => seconds >= size);
  return `${(seconds / size).toFixed(seconds / size < 10 ? 1 : 0)} ${word}`;
}

// ---- elements ----------------------------------------------------------------------------------

function element(tag, { className, text, ...more } = {}, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(more)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function show(id, text, value) {
  const at = byId(id);
  at.textContent = text;
  if (value !== undefined) at.dataset.value = value ?? "none";
}

function list(id, items, empty) {
  const shown = items.length > 0 ? items : [element("li", { className: "quiet", text: empty })];
  byId(id).replaceChildren(...shown);
}

function bar(share, part = 0) {
  const width = (share) => `${Math.min(100, Math.max(0, share * 100))}%`;
  const [all, some] = [element("span"), element("span", { className: "part" })];
  all.style.width = width(share);
  some.style.width = width(part);
  return element("div", { className: "bar" }, all, some);
}

// ---- over time ---------------------------------------------------------------------------------

// What happened each second between two samples; nothing where a daemon has begun anew.
function between(before, after) {
  const seconds = (after.unix_milliseconds - before.unix_milliseconds) / 1000;
  const more = (name) => after[name] - before[name];
  const counters = ["served_bytes", "fetched_bytes", "hits", "misses"];
  if (seconds <= 0 || counters.some((name) => more(name) < 0)) return null;
  const asked = more("hits") + more("misses");
  return {
    at: after.unix_milliseconds,
    read: more("served_bytes") / seconds,
    fetch: more("fetched_bytes") / seconds,
    hit: asked > 0 ? more("hits") / asked : null,
  };
}

function points(wanted) {
  // Where less is known than is wanted, what is known fills the width.
  const end = samples.at(-1).unix_milliseconds;
  const span = Math.min(wanted, Math.max(LEAST_MS, end - samples[0].unix_milliseconds));
  const start = end - span;
  const step = Math.max(1, span / POINTS_MAX);
  const made = [];
  let before = null;
  for (const sample of samples) {
    if (sample.unix_milliseconds < start - step) continue;
    const isDue = !before || sample.unix_milliseconds - before.unix_milliseconds >= step;
    if (!isDue && sample.unix_milliseconds !== end) continue;
    const point = before && between(before, sample);
    if (point) made.push(point);
    before = sample;
  }
  return { start, end, made };
}

// The next round number above, and lines below it.
function scale(max) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log2(Math.max(1, max)) / 10));
  const top = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024].find((step) => step * unit >= max);
  return (top ?? 1024) * unit;
}

function chart(id, { start, end, made }, { top, label, lines }) {
  const at = byId(id);
  const [width, height] = [at.clientWidth, at.clientHeight];
  const [left, right, above, below] = [64, 6, 8, 18];
  const x = (ms) => left + ((ms - start) / (end - start)) * (width - left - right);
  const y = (value) => above + (1 - value / top) * (height - above - below);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  for (const share of height > 140 ? [0, 0.5, 1] : [0, 1]) {
    const [line, value] = [y(top * share), top * share];
    svg.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: line, y2: line }));
    svg.append(drawn("text", { x: left - 8, y: line + 4, "text-anchor": "end" }, label(value)));
  }
  for (const share of width > 600 ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.5, 1]) {
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    const text = clock(start + share * (end - start));
    const place = { x: x(start + share * (end - start)), y: height - 3, "text-anchor": anchor };
    svg.append(drawn("text", place, text));
  }
  const inside = made.filter((point) => point.at >= start);
  for (const { name, area } of lines) {
    const known = inside.filter((point) => point[name] !== null);
    if (known.length === 0) continue;
    const spots = known.map((point) => `${x(point.at).toFixed(1)},${y(point[name]).toFixed(1)}`);
    // A single point shows as a dot.
    const path = `M${spots.join("L")}${spots.length === 1 ? "h0.1" : ""}`;
    if (area) {
      const [first, last] = [x(known[0].at).toFixed(1), x(known.at(-1).at).toFixed(1)];
      svg.append(drawn("path", { class: area, d: `${path}L${last},${y(0)}L${first},${y(0)}Z` }));
    }
    svg.append(drawn("path", { class: name, d: path }));
  }
  const cursor = drawn("line", { class: "cursor", y1: above, y2: height - below, visibility: "hidden" });
  svg.append(cursor);
  at.replaceChildren(svg);
  at.onpointermove = (event) => {
    const place = event.clientX - at.getBoundingClientRect().left;
    const away = (point) => Math.abs(x(point.at) - place);
    const near = inside.reduce((a, b) => (a && away(a) <= away(b) ? a : b), null);
    if (!near) return;
    cursor.setAttribute("x1", x(near.at));
    cursor.setAttribute("x2", x(near.at));
    cursor.setAttribute("visibility", "visible");
    legend(near);
  };
  at.onpointerleave = () => {
    cursor.setAttribute("visibility", "hidden");
    legend(null);
  };
}

function legend(point) {
  byId("at-read").textContent = point ? `${bytes(point.read)}/s at ${clock(point.at)}` : "";
  byId("at-fetch").textContent = point ? `${bytes(point.fetch)}/s` : "";
  byId("at-hit").textContent = point && point.hit !== null ? percent(point.hit) : "";
}

function showTime() {
  if (samples.length === 0) return;
  const shown = points(shownMs);
  const top = scale(Math.max(1024, ...shown.made.flatMap((point) => [point.read, point.fetch])));
  chart("throughput", shown, {
    top,
    label: (value) => `${bytes(value)}/s`,
    lines: [{ name: "read", area: "read-area" }, { name: "fetch" }],
  });
  chart("hits", shown, {
    top: 1,
    label: (value) => `${value * 100} %`,
    lines: [{ name: "hit", area: "hit-area" }],
  });
}

function keepSample(sample) {
  samples.push(sample);
  const oldest = sample.unix_milliseconds - KEPT_MS;
  samples = samples.filter((one) => one.unix_milliseconds >= oldest);
}

function showNow(status) {
  const last = samples.at(-1);
  const first = samples.findLast((one) => last.unix_milliseconds - one.unix_milliseconds >= NOW_MS);
  const now = between(first ?? samples[0], last);
  show("read-rate", `${bytes(now?.read ?? 0)}/s`);
  show("fetch-rate", `${bytes(now?.fetch ?? 0)}/s`);
  show("hit-now", typeof now?.hit === "number" ? percent(now.hit) : "–");
  show("served", bytes(status.cache.served_bytes), status.cache.served_bytes);
  show("fetched", bytes(status.cache.fetched_bytes), status.cache.fetched_bytes);
  const ratio = status.cache.hit_ratio;
  show("hit-ratio", ratio === null ? "–" : percent(ratio), ratio);
  const { waits: count, waited_micros: micros } = status.kernel;
  waits.push({ at: last.unix_milliseconds, count, micros });
  waits = waits.filter((one) => last.unix_milliseconds - one.at <= NOW_MS);
  const [more, spent] = [count - waits[0].count, micros - waits[0].micros];
  show("wait-now", more > 0 ? `${time(spent / more / 1000)} each` : "none");
  show("waits", number(count), count);
}

// ---- cards -------------------------------------------------------------------------------------

function showHealth(health) {
  const words = { pass: "all well", warn: "look at it", fail: "needs you" };
  const state = byId("health-state");
  state.textContent = words[health.state] ?? health.state;
  state.className = `pill ${health.state}`;
  state.dataset.value = health.state;
  const items = health.findings.map((one) => element("li", {},
    element("span", { className: `${one.state}-text`, text: `${one.state} ` }),
    element("span", { text: one.what }),
    element("p", { className: "quiet", text: one.why }),
    element("code", { className: "fix", text: one.fix })));
  list("findings", items, "Nothing is wrong as far as the daemon can tell.");
}

function tier(id, name, used, whole, note, part = 0) {
  const share = whole > 0 ? used / whole : 0;
  const words = element("div", { className: "row" },
    element("b", { text: name }),
    element("span", { id, text: `${bytes(used)} of ${bytes(whole)}`, "data-value": used }));
  return element("div", { className: "tier" }, words,
    bar(share, whole > 0 ? part / whole : 0),
    element("p", { className: "quiet", text: note }));
}

function showCache(status) {
  const { cache, memory, staged, pins, kernel } = status;
  const pinned = Math.min(cache.pinned_bytes, cache.used_bytes);
  const disk = [
    `${number(cache.objects)} objects`,
    pins.length > 0 ? `${bytes(cache.pinned_bytes)} pinned` : null,
    `${number(cache.evictions)} evicted`,
    cache.dir,
  ];
  const open = kernel.open_files;
  byId("tiers").replaceChildren(
    tier("cache-used", "Disk", cache.used_bytes, cache.capacity_bytes, disk.filter(Boolean).join(" · "), pinned),
    tier("data-used", "Memory, data on its way", memory.data_bytes, memory.data_budget_bytes,
      `the whole process: ${bytes(memory.used_bytes)} of ${bytes(memory.budget_bytes)}`),
    element("div", { className: "tier" }, element("p", { text:
      `${number(open.passthrough)} files are read by the kernel itself, ` +
      `${number(open.cached + open.direct)} through the daemon` })),
    element("div", { className: "tier" }, element("p", { id: "staged", "data-value": staged.files, text:
      staged.files > 0
        ? `${number(staged.files)} written files (${bytes(staged.bytes)}) are not stored yet, the oldest for ${time(staged.oldest_seconds * 1000)}`
        : "Everything that was written is stored." })));
}

function showMounts(status) {
  const items = status.mounts.map((mount, index) => {
    const asked = mount.requests;
    const kinds = ["list", "head", "get", "put", "copy", "delete", "upload", "other"];
    const sum = kinds.reduce((all, kind) => all + asked[kind], 0);
    const facts = [
      `${number(sum)} requests`,
      `${bytes(asked.bytes_read)} read`,
      asked.bytes_written > 0 ? `${bytes(asked.bytes_written)} written` : null,
      asked.errors > 0 ? `${number(asked.errors)} failed` : null,
      asked.throttled > 0 ? `${number(asked.throttled)} asked to slow down` : null,
    ];
    const held = usageOfMounts.get(mount.at);
    const item = element("li", {},
      element("div", { className: "row" },
        element("span", {}, element("b", { className: "path", text: mount.at }), " ",
          element("span", { className: "path quiet", text: mount.uri })),
        element("span", { className: "quiet", id: `mount-${index}`, "data-value": sum, text: facts.filter(Boolean).join(" · ") })));
    if (held) {
      item.append(bar(held.bytes > 0 ? held.cached_bytes / held.bytes : 0),
        element("p", { className: "quiet", id: `mount-cached-${index}`, "data-value": held.cached_bytes,
          text: `${bytes(held.cached_bytes)} of ${bytes(held.bytes)} cached, ${number(held.cached_files)} of ${number(held.files)} files whole` }));
    }
    if (mount.fault) item.append(element("p", { className: "fail-text", text: mount.fault }));
    return item;
  });
  list("mounts", items, "Nothing is mounted.");
}

function showLoads(jobs) {
  const states = { running: "quiet", complete: "pass-text", incomplete: "fail-text", stopped: "warn-text" };
  const items = [...jobs].reverse().map((job) => {
    const share = job.found_bytes > 0 ? job.cached_bytes / job.found_bytes : 0;
    const running = job.state === "running";
    const total = `${bytes(job.cached_bytes)} of ${job.is_listed || !running ? "" : "at least "}${bytes(job.found_bytes)}`;
    const facts = [
      job.metadata_only ? `${number(job.directories)} directories` : total,
      `${number(job.cached_files)} of ${number(job.found_files)} files`,
      job.failed_files > 0 ? `${number(job.failed_files)} failed` : null,
      !running && job.missing_count > 0 ? `${number(job.missing_count)} missing` : null,
      time(job.elapsed_seconds * 1000),
    ];
    const item = element("li", { "data-load": job.path, "data-state": job.state, "data-cached": job.cached_bytes },
      element("div", { className: "row" },
        element("b", { className: "path", text: job.path }),
        element("span", { className: states[job.state] ?? "quiet", text: running ? job.step : job.state })));
    if (!job.metadata_only) item.append(bar(share));
    item.append(element("p", { className: "quiet", text: facts.filter(Boolean).join(" · ") }));
    if (job.halt) item.append(element("p", { className: "warn-text", text: job.halt }));
    return item;
  });
  list("loads", items, "No load runs. Begin one with: forebay load PATH");
}

function showSlow(slow) {
  const items = [...slow].reverse().map((one) => {
    const item = element("li", { "data-slow": one.path, "data-value": one.milliseconds },
      element("div", { className: "row" },
        element("span", {}, element("b", { text: `${one.operation} ` }), element("span", { className: "path", text: one.path })),
        element("span", { className: "quiet", text: `${time(one.milliseconds)} at ${clock(one.unix_milliseconds)}` })));
    if (one.error) item.append(element("p", { className: "fail-text", text: one.error }));
    return item;
  });
  list("slow", items, "No request took half a second or longer.");
}

function showErrors(events) {
  const items = [...events].reverse().map((one) => element("li", {},
    element("div", { className: "row" },
      element("span", { className: one.level === "ERROR" ? "fail-text" : "warn-text", text: one.level.toLowerCase() }),
      element("span", { className: "quiet", text: new Date(one.unix_seconds * 1000).toLocaleString("en-GB") })),
    element("p", { text: one.message })));
  list("errors", items, "Nothing was logged that a person has to look at.");
}

// ---- the map of what is cached -----------------------------------------------------------------

// Places rectangles of given weights, each as square as it can be.
function squares(weights, left, top, width, height) {
  const placed = [];
  const whole = weights.reduce((sum, one) => sum + one, 0);
  let area = (width * height) / whole;
  let at = 0;
  while (at < weights.length) {
    const short = Math.min(width, height);
    let [end, sum, worst] = [at, 0, Infinity];
    while (end < weights.length) {
      const next = sum + weights[end] * area;
      const [most, least] = [weights[at] * area, weights[end] * area];
      const ratio = Math.max((short * short * most) / (next * next), (next * next) / (short * short * least));
      if (ratio > worst) break;
      [worst, sum, end] = [ratio, next, end + 1];
    }
    const thick = sum / short;
    let along = 0;
    for (; at < end; at += 1) {
      const long = (weights[at] * area) / thick;
      placed.push(width >= height
        ? { left, top: top + along, width: thick, height: long }
        : { left: left + along, top, width: long, height: thick });
      along += long;
    }
    if (width >= height) [left, width] = [left + thick, width - thick];
    else [top, height] = [top + thick, height - thick];
  }
  return placed;
}

const joined = (dir, name) => `${dir === "/" ? "" : dir}/${name}`;

function showMap() {
  const map = byId("map");
  const parts = mapPath.split("/").filter(Boolean);
  const crumbs = ["/", ...parts].map((name, index) => {
    const crumb = element("button", { type: "button", text: index === 0 ? "/" : `${name}${index < parts.length ? "/" : ""}` });
    const path = `/${parts.slice(0, index).join("/")}`;
    if (index < parts.length) crumb.onclick = () => measure(path);
    return crumb;
  });
  byId("crumbs").replaceChildren(...crumbs);
  if (!usage) return map.replaceChildren();
  show("map-sum", `${bytes(usage.cached_bytes)} of ${bytes(usage.bytes)}, ${number(usage.files)} files`, usage.cached_bytes);
  const names = usage.names.filter((one) => one.bytes > 0);
  if (usage.other_names.bytes > 0) {
    names.push({ ...usage.other_names, name: "all others", is_directory: false });
    names.sort((a, b) => b.bytes - a.bytes);
  }
  const places = squares(names.map((one) => one.bytes), 0, 0, map.clientWidth, map.clientHeight);
  const cells = names.map((one, index) => {
    const { left, top, width, height } = places[index];
    const share = one.cached_bytes / one.bytes;
    const words = `${one.name}${one.is_directory ? "/" : ""}: ${bytes(one.cached_bytes)} of ${bytes(one.bytes)} cached`;
    const tag = one.is_directory ? "button" : "div";
    const cell = element(tag, { className: "cell", title: words, "data-name": one.name, "data-value": one.cached_bytes });
    if (one.is_directory) {
      cell.type = "button";
      cell.setAttribute("aria-label", words);
      cell.onclick = () => measure(joined(mapPath, one.name));
    }
    for (const [name, value] of Object.entries({ left, top, width, height })) cell.style[name] = `${value}px`;
    cell.style.setProperty("--share", `${share * 100}%`);
    if (width < 26 || height < 14) cell.style.padding = "0";
    if (width > 44 && height > 22) cell.append(element("b", { text: `${one.name}${one.is_directory ? "/" : ""}` }));
    if (width > 60 && height > 42) cell.append(element("small", { text: `${bytes(one.bytes)}, ${percent(share)}` }));
    return cell;
  });
  map.replaceChildren(...cells);
}

async function measure(path) {
  measuring?.abort();
  const mine = new AbortController();
  measuring = mine;
  byId("measure").disabled = true;
  byId("map-note").textContent = `Measuring ${path} …`;
  const began = performance.now();
  try {
    const found = await ask(`/v1/usage?path=${encodeURIComponent(path)}&names=true`, mine.signal);
    [usage, mapPath] = [found, path];
    if (path === "/") {
      const mounts = found.mounts.length > 0 ? found.mounts : [{ ...found, name: "/" }];
      usageOfMounts = new Map(mounts.map((mount) => [mount.name, mount]));
    }
    showMap();
    const empty = found.bytes === 0 ? "Nothing is there. " : "";
    byId("map-note").textContent =
      `${empty}Measured at ${clock(Date.now())} in ${time(performance.now() - began)}: names are listed anew where they are too old, as by forebay du.`;
    byId("map").dataset.path = path;
  } catch (error) {
    if (mine.signal.aborted) return;
    byId("map-note").textContent = `${path} could not be measured: ${error.message}`;
  } finally {
    if (measuring === mine) {
      measuring = null;
      byId("measure").disabled = false;
    }
  }
}

// ---- the round ---------------------------------------------------------------------------------

function sampleOf(status, at) {
  const silent = ["forget", "release", "releasedir"];
  const kinds = Object.entries(status.kernel.requests).filter(([kind]) => !silent.includes(kind));
  return {
    unix_milliseconds: at,
    served_bytes: status.cache.served_bytes,
    fetched_bytes: status.cache.fetched_bytes,
    hits: status.cache.hits,
    misses: status.cache.misses,
    operations: kinds.reduce((sum, [, count]) => sum + count, 0),
  };
}

function showStatus(status) {
  document.title = `Forebay ${status.mount_point}`;
  show("mount-point", status.mount_point);
  show("about", `version ${status.version}, pid ${status.pid}, up for ${time(status.uptime_seconds * 1000)}`, status.pid);
  keepSample(sampleOf(status, Date.now() + skewMs));
  showNow(status);
  showTime();
  showCache(status);
  showMounts(status);
  showSlow(status.kernel.slow);
  showErrors(status.last_errors);
}

function say(state, text, trouble) {
  const pill = byId("state");
  pill.textContent = text;
  pill.className = `pill ${state}`;
  byId("trouble").hidden = !trouble;
  byId("trouble").textContent = trouble ?? "";
}

async function look() {
  try {
    if (samples.length === 0) {
      samples = (await ask("/v1/history")).samples;
      skewMs = samples.at(-1).unix_milliseconds - Date.now();
    }
    const [status, health, jobs] = await Promise.all([ask("/v1/status"), ask("/v1/health"), ask("/v1/jobs")]);
    showStatus(status);
    showHealth(health);
    showLoads(jobs.jobs);
    say("pass", "live");
  } catch (error) {
    say("fail", "no answer", error.message);
  }
  document.body.dataset.looks = Number(document.body.dataset.looks ?? 0) + 1;
}

async function watch() {
  for (;;) {
    // Nobody looks at a page in the background; it goes on where it was.
    if (!document.hidden) await look();
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

for (const button of document.querySelectorAll("[data-span]")) {
  button.onclick = () => {
    shownMs = Number(button.dataset.span);
    for (const other of document.querySelectorAll("[data-span]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    showTime();
  };
}
byId("measure").onclick = () => measure(mapPath);
let resizing = 0;
addEventListener("resize", () => {
  cancelAnimationFrame(resizing);
  resizing = requestAnimationFrame(() => {
    showTime();
    showMap();
  });
});
watch();
measure("/");
