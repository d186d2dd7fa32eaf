"use strict";

const MOST_BARS = 10;
const STRANGE = 0.05;
const find = (id) => document.getElementById(id);
let key = sessionStorage.getItem("graft-key") || "";
let waiting = [];
let withMaps = false;

const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});
const percent = (p) => `${(100 * p).toFixed(1)} %`;
const say = (text) => { find("status").textContent = text; };

function show(element, text) {
  element.textContent = text;
  element.hidden = false;
}

function needKey(reason) {
  find("key-form").hidden = false;
  if (reason) show(find("key-error"), reason);
  find("key").focus();
}

async function learn() {
  const answer = await fetch("/version", { headers: headers() });
  if (answer.status === 401) return needKey(key ? "This is not the key of this server." : "");
  find("key-form").hidden = true;
  const { model } = await answer.json();
  withMaps = Boolean(model) && model.task === "anomaly";
  if (withMaps) document.title = find("title").textContent = "Is this picture as it should be?";
  find("model").textContent = model ? `Model ${model.name} ${model.version}`.trim() : "The model is being loaded.";
  const before = waiting;
  waiting = [];
  take(before);
}

async function ask(file) {
  let answer;
  try {
    answer = await fetch(withMaps ? "/predict?map=true" : "/predict", {
      method: "POST", body: file, headers: { ...headers(), "Content-Type": "application/octet-stream" },
    });
  } catch {
    throw new Error("The server does not answer.");
  }
  let told;
  try {
    told = await answer.json();
  } catch {
    throw new Error(`The server answered with status ${answer.status}.`);
  }
  if (answer.status === 401) {
    waiting.push(file);
    needKey("A key is needed.");
  }
  if (!answer.ok) throw new Error(sentence(told.error || `status ${answer.status}`));
  return told;
}

function sentence(text) {
  const better = text.replace(/^this is not an image that can be read: .*/, "this file is not a picture that can be read.");
  return better[0].toUpperCase() + better.slice(1) + (/[.!?]$/.test(better) ? "" : ".");
}

function newCard(file) {
  const card = find("card").content.firstElementChild.cloneNode(true);
  card.querySelector(".name").textContent = file.name || "Picture";
  card.querySelector(".label").textContent = "Looking …";
  const image = card.querySelector("img");
  image.onerror = () => { image.remove(); card.classList.add("without"); };
  image.onload = () => { image.alt = `Your picture ${file.name || ""}`.trim(); };
  image.src = URL.createObjectURL(file);
  find("answers").prepend(card);
  return card;
}

function title(told) {
  if ("anomalous" in told) return told.anomalous ? "Anomalous" : "Good";
  if ("label" in told) return told.label;
  if ("labels" in told) return told.labels.length ? told.labels.join(", ") : "None of the classes";
  const value = told.value.toLocaleString(undefined, { maximumSignificantDigits: 5 });
  if (!("low" in told)) return value;
  const [low, high] = [told.low, told.high].map((x) => x.toLocaleString(undefined, { maximumSignificantDigits: 5 }));
  return `${value} (between ${low} and ${high})`;
}

function addBars(card, told) {
  const chosen = new Set("label" in told ? [told.label] : told.labels || []);
  const rows = Object.entries(told.probabilities || {}).sort((a, b) => b[1] - a[1]);
  const body = card.querySelector("tbody");
  for (const [name, p] of rows.slice(0, MOST_BARS)) {
    const row = body.insertRow();
    row.className = chosen.has(name) ? "chosen" : "";
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    const meter = document.createElement("meter");
    meter.value = p;
    meter.setAttribute("aria-hidden", "true");
    row.append(head);
    row.insertCell().append(meter);
    const number = row.insertCell();
    number.className = "number";
    number.textContent = percent(p);
  }
  card.querySelector(".bars").hidden = !rows.length;
}

function fill(card, file, told) {
  card.querySelector(".label").textContent = told.abstain ? "Not sure" : title(told);
  if (told.abstain) show(card.querySelector(".unsure"), `Not sure. The best guess is ${told.label}, with ${percent(told.score)}.`);
  else if (told.set && told.set.length > 1) show(card.querySelector(".unsure"), `It could be any of: ${told.set.join(", ")}.`);
  if ("typicality" in told && told.typicality < STRANGE) {
    show(card.querySelector(".strange"), "This picture is unlike anything that the model has learned from. Do not rely on the answer.");
  }
  addBars(card, told);
  if ("anomalous" in told) return showHeat(card, file, told);
  const explain = card.querySelector(".explain");
  explain.hidden = false;
  explain.onclick = () => saliency(card, file, explain);
  say(`${file.name || "Picture"}: ${card.querySelector(".label").textContent}`);
}

function showHeat(card, file, told) {
  const score = told.score.toLocaleString(undefined, { maximumSignificantDigits: 4 });
  show(card.querySelector(".scores"), `Score ${score}. About ${percent(told.p_value)} of good pictures score as high or higher.`);
  say(`${file.name || "Picture"}: ${title(told)}`);
  if (!told.map) return;
  const image = card.querySelector("img");
  const button = card.querySelector(".explain");
  const [plain, heat] = [image.src, `data:image/png;base64,${told.map}`];
  const turn = (on) => {
    image.src = on ? heat : plain;
    image.alt = on ? "Your picture; the coloured parts are unlike the good pictures" : "Your picture";
    button.textContent = on ? "Hide the colours" : "Show where";
    button.onclick = () => turn(!on);
  };
  image.onload = null;
  card.querySelector(".legend").hidden = false;
  button.hidden = false;
  turn(true);
}

async function saliency(card, file, button) {
  button.disabled = true;
  button.textContent = "Looking …";
  const answer = await fetch("/saliency", {
    method: "POST", body: file, headers: { ...headers(), "Content-Type": "application/octet-stream" },
  }).catch(() => null);
  if (answer && answer.ok) {
    const image = card.querySelector("img");
    image.onload = null;
    image.src = URL.createObjectURL(await answer.blob());
    image.alt = "Your picture; the coloured parts decided the answer";
    button.hidden = true;
    say("The picture now shows what the model looked at.");
  } else {
    const told = answer ? await answer.json().catch(() => ({})) : {};
    show(card.querySelector(".error"), sentence(told.error || "the server does not answer"));
    button.textContent = "Try again";
    button.disabled = false;
  }
}

async function takeOne(file) {
  const card = newCard(file);
  try {
    fill(card, file, await ask(file));
  } catch (error) {
    card.querySelector(".label").textContent = "No answer";
    show(card.querySelector(".error"), error.message);
    say(`${file.name || "Picture"}: ${error.message}`);
  }
  return card;
}

async function take(files) {
  for (const file of files) {
    const card = await takeOne(file);
    if (file === files[files.length - 1]) card.querySelector(".label").focus({ preventScroll: true });
  }
}

function watchDrops() {
  const zone = find("drop");
  document.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) zone.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
  for (const id of ["files", "photo"]) {
    find(id).addEventListener("change", (event) => { take([...event.target.files]); event.target.value = ""; });
  }
}

async function openCamera() {
  find("viewer").hidden = false;
  find("camera-error").hidden = true;
  try {
    find("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    await find("video").play();
    find("shoot").focus();
  } catch {
    show(find("camera-error"), "The camera cannot be used. A browser allows it over HTTPS or on this machine only, and if you agree.");
  }
}

function closeCamera() {
  const stream = find("video").srcObject;
  if (stream) stream.getTracks().forEach((track) => track.stop());
  find("video").srcObject = null;
  find("viewer").hidden = true;
  find("camera").focus();
}

function shoot() {
  const video = find("video");
  if (!video.videoWidth) return;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => take([new File([blob], "From the camera", { type: "image/jpeg" })]), "image/jpeg", 0.92);
}

find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = find("key").value.trim();
  sessionStorage.setItem("graft-key", key);
  learn();
});
find("camera").addEventListener("click", openCamera);
find("close").addEventListener("click", closeCamera);
find("shoot").addEventListener("click", shoot);
watchDrops();
if (document.body.dataset.needsKey === "yes" && !key) needKey("");
else learn().catch(() => { find("model").textContent = "The server does not answer."; });
