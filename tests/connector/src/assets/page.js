"use strict";

// Texts of agents and requests become text nodes and nothing else.

const MOST_ROWS = 200;
const MOST_LINES = 2000;
const jobs = new Map();
const agents = new Map();
const at = (id) => document.getElementById(id);
let chosen = null;
let source = null;

function row(cells, name) {
  const row = document.createElement("tr");
  for (const [text, kind] of cells) {
    const cell = document.createElement("td");
    cell.textContent = text;
    if (kind) cell.className = kind;
    row.append(cell);
  }
  if (name === chosen) row.className = "chosen";
  return row;
}

const time = (milliseconds) => new Date(milliseconds).toLocaleString();

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
}

function show() {
  at("agents").replaceChildren(...[...agents.values()].slice(0, MOST_ROWS).map((agent) => row([
    [agent.id],
    agent.connected ? ["connected", "connected"] : ["away", "away"],
    [agent.facts.platform ?? ""],
    [agent.facts.hostname],
    [agent.facts.agentVersion],
    [agent.facts.disks.map((disk) => `${disk.deviceName} ${size(disk.sizeBytes)}`).join(", ")],
    [agent.jobs.map((job) => job.slice(0, 8)).join(", ")],
    [time(agent.lastSeen)],
  ])));
  const newest = [...jobs.values()].sort((a, b) => b.number - a.number).slice(0, MOST_ROWS);
  at("jobs").replaceChildren(...newest.map((job) => {
    const line = row([
      [job.id.slice(0, 8)],
      [job.operation],
      [job.cancelRequested && !job.ended ? `${job.status}, to be cancelled` : job.status, job.status],
      [`${job.overallProgressPercent} %`],
      [job.step && job.bytesTotal ? `${job.step}: ${size(job.bytesDone)} of ${size(job.bytesTotal)}` : job.step],
      [job.agent ?? ""],
      [time(job.created)],
    ], job.id);
    line.addEventListener("click", () => choose(job.id));
    return line;
  }));
}

async function choose(id) {
  chosen = id;
  at("detail").hidden = false;
  at("chosen").textContent = id;
  at("log").textContent = "";
  await result();
  listen();
}

async function result() {
  const answer = await fetch(`/jobs/${encodeURIComponent(chosen)}`);
  if (answer.ok) at("result").textContent = JSON.stringify(await answer.json(), null, 2);
}

function listen() {
  if (source) source.close();
  source = new EventSource(chosen ? `/events?job=${encodeURIComponent(chosen)}` : "/events");
  source.addEventListener("open", () => { at("link").textContent = "live"; at("log").textContent = ""; });
  source.addEventListener("error", () => {
    at("link").textContent = "not connected";
    // Refused, and not only cut off: most likely the login has ended, and the form will say so.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 2000);
  });
  source.addEventListener("changes", (event) => {
    const changes = JSON.parse(event.data);
    for (const job of changes.jobs) jobs.set(job.id, job);
    for (const agent of changes.agents) agents.set(agent.id, agent);
    show();
    if (changes.jobs.some((job) => job.id === chosen)) result();
  });
  source.addEventListener("logs", (event) => {
    const log = at("log");
    for (const [, line] of JSON.parse(event.data)) {
      log.append(`${new Date(line.time).toISOString()} ${line.level} ${line.target}: ${line.message}\n`);
    }
    while (log.childNodes.length > MOST_LINES) log.firstChild.remove();
    log.scrollTop = log.scrollHeight;
  });
}

listen();
