"use strict";

const AHEAD = 3;
const find = (id) => document.getElementById(id);
let key = sessionStorage.getItem("graft-key") || "";
let who = localStorage.getItem("graft-who") || "";
let state = null;
let queue = "";
let items = [];
let chosen = new Set();
let many = false;
let guess = "";
let wrong = new Set();
let busy = false;
const pictures = new Map();

const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const current = () => items[0];
const isNumber = () => state.task === "regression";
const isSeveral = () => state.task === "multilabel";

function trouble(text) {
  find("trouble").textContent = text;
  find("trouble").hidden = !text;
}

/* A server that does not answer is asked again until it does: the answer is kept here, and nothing is lost. */
async function ask(path, body) {
  const how = body === undefined ? { headers: headers() } : {
    method: "POST", body: JSON.stringify(body), headers: { ...headers(), "Content-Type": "application/json" },
  };
  for (;;) {
    let answer;
    try {
      answer = await fetch(path, how);
    } catch {
      trouble("The server does not answer. Your answer is kept here and sent again; leave this page open.");
      await pause(700);
      continue;
    }
    if (answer.status === 401) {
      needKey(key ? "This is not the key of this server." : "");
      throw new Error("A key is needed.");
    }
    const told = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
    if (!answer.ok) throw new Error(told.error || told.detail?.[0]?.msg || `status ${answer.status}`);
    trouble("");
    return told;
  }
}

async function picture(id, small) {
  const path = `/api/image/${id}${small ? "?small=true" : ""}`;
  if (!pictures.has(path)) {
    pictures.set(path, fetch(path, { headers: headers() }).then(async (answer) => {
      if (!answer.ok) throw new Error((await answer.json()).error);
      return URL.createObjectURL(await answer.blob());
    }));
    if (pictures.size > 300) forget();
  }
  try {
    return await pictures.get(path);
  } catch (error) {
    pictures.delete(path);
    throw error;
  }
}

function forget() {
  const [path, one] = pictures.entries().next().value;
  pictures.delete(path);
  one.then((url) => setTimeout(() => URL.revokeObjectURL(url), 5000), () => {});
}

function needKey(reason) {
  find("key-form").hidden = false;
  find("key-error").textContent = reason;
  find("key-error").hidden = !reason;
  find("key").focus();
}

async function begin() {
  find("who-form").hidden = Boolean(who);
  if (!who) return find("who").focus();
  state = await ask("/api/state");
  find("key-form").hidden = true;
  find("queues").hidden = find("mode").hidden = false;
  const first = state.queues.find((one) => state.left[one.name] > 0);
  await open(queue || (first ? first.name : "pool"));
}

async function open(name) {
  queue = name;
  items = [];
  guess = "";
  await (many ? showGrid() : fill());
  draw();
}

function note(told) {
  for (const name of ["left", "people", "agreement", "classes"]) if (told[name]) state[name] = told[name];
}

async function fill() {
  const have = new Set(items.map((one) => one.image_id));
  if (items.length < AHEAD) {
    const told = await ask(`/api/next?queue=${queue}&who=${encodeURIComponent(who)}&count=${AHEAD + 1}`);
    note(told);
    items.push(...told.items.filter((one) => !have.has(one.image_id)));
    for (const one of items.slice(1)) picture(one.image_id, false).catch(() => {});
  }
}

function draw() {
  drawQueues();
  find("work").hidden = many || !items.length;
  find("grid").hidden = !many;
  find("empty").hidden = many || items.length > 0;
  find("mode").textContent = many ? "One at a time" : "Many at a time";
  if (!many && items.length) drawItem();
}

function drawQueues() {
  const shown = state.queues.filter((one) => state.left[one.name] || one.name === queue || one.name === "pool");
  find("queues").replaceChildren(...shown.map((one) => {
    const button = document.createElement("button");
    button.textContent = `${one.title} (${state.left[one.name].toLocaleString()})`;
    button.dataset.queue = one.name;
    button.setAttribute("aria-current", String(one.name === queue));
    button.onclick = () => act(() => open(one.name));
    return button;
  }));
  const total = Object.values(state.people).reduce((sum, one) => sum + one, 0);
  find("progress").textContent = `${total.toLocaleString()} answers; ${who}: ${(state.people[who] || 0).toLocaleString()}`;
  const names = Object.entries(state.people).map(([name, count]) => `${name} ${count.toLocaleString()}`);
  const agreed = state.agreement.images
    ? `; two people agree on ${Math.round(100 * state.agreement.equal)} % of ${state.agreement.images} (kappa ${state.agreement.kappa.toFixed(2)})`
    : "";
  find("people").textContent = names.join(", ") + agreed;
}

function drawItem() {
  const item = current();
  chosen = new Set(isSeveral() && item.label ? item.label.split("|") : []);
  find("stage").classList.remove("zoomed");
  find("zoom").setAttribute("aria-pressed", "false");
  find("image").alt = `Picture ${item.path}`;
  find("image").dataset.id = item.image_id;
  show(find("image"), item.image_id, false, item);
  find("path").textContent = item.path;
  find("said").textContent = item.label ? `Its label: ${item.label}` : "It has no label.";
  find("guess-row").hidden = !item.guess || isNumber();
  const sure = item.probability === null ? "" : ` (${Math.round(100 * item.probability)} %)`;
  find("guess").textContent = `${item.guess}${sure} — Enter`;
  find("beside").hidden = !item.beside;
  if (item.beside) {
    find("beside-label").textContent = item.beside.label;
    find("beside-image").alt = `The other picture, ${item.beside.label}`;
    show(find("beside-image"), item.beside.image_id, true, item);
  }
  find("filter").value = "";
  find("filter-label").textContent = isNumber() ? "The number" : "Type a class; a new name makes a new class";
  find("submit").hidden = !isSeveral() && !isNumber();
  drawClasses();
  drawNeighbours(item);
}

async function show(element, id, small, item) {
  try {
    const url = await picture(id, small);
    if (current() === item) element.src = url;
  } catch (error) {
    if (current() === item) trouble(`The picture cannot be shown: ${error.message}`);
  }
}

function matches() {
  const typed = find("filter").value.trim().toLowerCase();
  return state.classes.filter((name) => !typed || name.toLowerCase().includes(typed));
}

/* The class of a digit: the one of this name, otherwise the one at this place. */
function keyed(digit) {
  const found = matches();
  const named = found.some((name) => /^[0-9]$/.test(name));
  return named ? found.find((name) => name === digit) : found[Number(digit) - 1];
}

function drawClasses() {
  if (isNumber()) return find("classes").replaceChildren();
  const typed = find("filter").value.trim();
  const found = matches();
  const buttons = found.map((name) => {
    const button = document.createElement("button");
    const mark = document.createElement("kbd");
    const digit = [..."0123456789"].find((one) => keyed(one) === name);
    mark.textContent = digit;
    button.append(...(digit && digit !== name ? [mark, " "] : []), name);
    button.dataset.name = name;
    button.setAttribute("role", "option");
    button.setAttribute("aria-selected", String(isSeveral() ? chosen.has(name) : name === current().label));
    button.onclick = () => act(() => choose(name));
    return button;
  });
  if (typed && !state.classes.includes(typed)) {
    const add = document.createElement("button");
    add.textContent = `New class “${typed}”`;
    add.dataset.name = typed;
    add.setAttribute("role", "option");
    add.onclick = () => act(() => choose(typed));
    buttons.push(add);
  }
  find("classes").replaceChildren(...buttons);
}

async function drawNeighbours(item) {
  find("neighbours").replaceChildren();
  const { neighbours } = await ask(`/api/neighbours/${item.image_id}`);
  if (current() !== item) return;
  find("neighbours").replaceChildren(...neighbours.map((one) => {
    const figure = document.createElement("figure");
    const image = document.createElement("img");
    const caption = document.createElement("figcaption");
    image.alt = `A picture alike, labelled ${one.label || "nothing"}`;
    caption.textContent = one.label || "no label";
    caption.title = `cosine ${one.cosine}`;
    show(image, one.image_id, true, item);
    figure.append(image, caption);
    return figure;
  }));
}

function choose(name) {
  if (!isSeveral()) return save(name);
  if (!chosen.delete(name)) chosen.add(name);
  if (!state.classes.includes(name)) state.classes = [...state.classes, name].sort();
  find("filter").value = "";
  drawClasses();
}

async function save(label) {
  const item = current();
  note(await ask("/api/answer", { image_id: item.image_id, label, who, why: item.why }));
  await advance();
}

async function advance() {
  items.shift();
  if (!items.length) await fill();
  else fill().catch((error) => trouble(error.message));
  draw();
}

async function undo() {
  const told = await ask("/api/undo", { who });
  note(told);
  if (told.items.length) {
    queue = told.items[0].queue;
    items = [told.items[0], ...items.filter((one) => one.image_id !== told.items[0].image_id)];
  }
  draw();
}

async function skip() {
  note(await ask("/api/skip", { who, image_id: current().image_id }));
  await advance();
}

async function enter() {
  const typed = find("filter").value.trim();
  if (isNumber()) return typed ? save(typed) : undefined;
  if (isSeveral() && !typed) return save([...chosen].sort().join("|"));
  if (!typed) return current().guess ? save(current().guess) : undefined;
  const exact = state.classes.find((name) => name.toLowerCase() === typed.toLowerCase());
  return choose(exact || (matches().length ? matches()[0] : typed));
}

function zoom() {
  const zoomed = find("stage").classList.toggle("zoomed");
  find("zoom").setAttribute("aria-pressed", String(zoomed));
}

/* One thing at a time: a key pressed twice does not answer two pictures. */
async function act(what) {
  if (busy) return;
  busy = true;
  try {
    await what();
  } catch (error) {
    trouble(error.message);
  } finally {
    busy = false;
    document.body.dataset.idle = String(Number(document.body.dataset.idle || 0) + 1);
  }
}

// Many at a time

async function showGrid() {
  const told = await ask(`/api/grid?queue=${queue}&who=${encodeURIComponent(who)}&guess=${encodeURIComponent(guess)}`);
  note(told);
  if (!guess && Object.keys(told.guesses).length) {
    guess = Object.keys(told.guesses)[0];
    return showGrid();
  }
  items = told.items;
  wrong = new Set();
  find("guesses").replaceChildren(...Object.entries(told.guesses).map(([name, count]) => {
    const button = document.createElement("button");
    button.className = "second";
    button.textContent = `${name} (${count.toLocaleString()})`;
    button.setAttribute("aria-pressed", String(name === guess));
    button.onclick = () => act(async () => { guess = name; await showGrid(); draw(); });
    return button;
  }));
  find("tiles").replaceChildren(...items.map(tile));
  drawConfirm();
}

function tile(item) {
  const button = document.createElement("button");
  const image = document.createElement("img");
  image.alt = `Picture ${item.path}`;
  picture(item.image_id, true).then((url) => { image.src = url; }, (error) => trouble(error.message));
  button.append(image);
  button.setAttribute("aria-pressed", "false");
  button.onclick = () => {
    if (!wrong.delete(item.image_id)) wrong.add(item.image_id);
    button.setAttribute("aria-pressed", String(wrong.has(item.image_id)));
    drawConfirm();
  };
  return button;
}

function drawConfirm() {
  const right = items.length - wrong.size;
  find("confirm").textContent = guess && right ? `${right} of these are ${guess}` : "Nothing to confirm";
  find("confirm").disabled = !guess || !right;
}

async function confirmAll() {
  const answers = items.filter((one) => !wrong.has(one.image_id))
    .map((one) => ({ image_id: one.image_id, label: guess, who, why: one.why }));
  for (const id of wrong) await ask("/api/skip", { who, image_id: id });
  note(await ask("/api/answers", { answers }));
  guess = "";
  await showGrid();
  draw();
}

// Keys

document.addEventListener("keydown", (event) => {
  if (!state || many || !items.length || event.altKey || event.metaKey) return;
  const typing = document.activeElement === find("filter");
  const empty = !find("filter").value;
  if (document.activeElement?.closest?.("form, nav, footer")) return;
  const does = {
    Enter: () => enter(), ArrowRight: () => skip(), ArrowLeft: () => undo(), Delete: () => save(state.discard),
    "?": () => save(state.unsure), "+": () => zoom(),
  }[event.key];
  if (event.ctrlKey) {
    if (event.key === "z") { event.preventDefault(); act(undo); }
    return;
  }
  if (event.key === "Escape") { find("filter").value = ""; drawClasses(); return; }
  if (event.key === "Enter" && document.activeElement?.tagName === "BUTTON") return;
  if (does && (empty || event.key === "Enter")) { event.preventDefault(); act(does); return; }
  if (/^[0-9]$/.test(event.key) && empty && !isNumber()) {
    const name = keyed(event.key);
    if (name) { event.preventDefault(); act(() => choose(name)); }
    return;
  }
  if (!typing && event.key.length === 1 && !event.ctrlKey) find("filter").focus();
});

find("filter").addEventListener("input", drawClasses);
find("guess").onclick = () => act(() => save(current().guess));
find("submit").onclick = () => act(enter);
find("unsure").onclick = () => act(() => save(state.unsure));
find("discard").onclick = () => act(() => save(state.discard));
find("skip").onclick = () => act(skip);
find("undo").onclick = () => act(undo);
find("zoom").onclick = zoom;
find("image").onclick = zoom;
find("confirm").onclick = () => act(confirmAll);
find("mode").onclick = () => act(async () => { many = !many; await open(queue); });
find("who-form").onsubmit = (event) => {
  event.preventDefault();
  who = find("who").value.trim();
  localStorage.setItem("graft-who", who);
  act(begin);
};
find("key-form").onsubmit = (event) => {
  event.preventDefault();
  key = find("key").value.trim();
  sessionStorage.setItem("graft-key", key);
  act(begin);
};
if (document.documentElement.dataset.key === "yes" && !key) needKey("");
else act(begin);
