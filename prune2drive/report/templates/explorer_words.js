// Says in words what the explorer shows, and hears what a person presses.
const OUTCOMES = {
  lost: "lost: right before, worse now",
  gained: "gained: better now",
  wrong: "wrong in both",
  right: "right in both",
  unscored: "not scored",
};
const ALONE = { wrong: "wrong", right: "right", unscored: "not scored" };
const RANK = ["lost", "wrong", "gained", "right", "unscored"];

function make(tag, text = "", classes = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = classes;
  return element;
}

function fill(select, choices, value = "") {
  select.replaceChildren(...choices.map(([key, text]) => {
    const option = Object.assign(make("option", text), { value: key });
    option.dataset.text = text;
    return option;
  }));
  pick(select, value);
}

// Chooses a value, or the first one where it is not offered.
function pick(select, value) {
  select.value = value ?? "";
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}

// Returns how the second run's answer compares with the first one's.
function outcomeOf(question, first, second) {
  const [before, after] = [question.runs[first][1], question.runs[second][1]];
  if (before === null || after === null) return "unscored";
  if (after !== before) return after < before ? "lost" : "gained";
  return after >= 1 ? "right" : "wrong";
}

// Describes a token: its place, what each run did with it, and the objects that it touches.
function describe(data, question, runs, camera, at) {
  const token = data.tokensAt(question, camera)[at], views = data.grids[question.grid][camera][0].length;
  const fates = [...new Set(runs)].map((run) => {
    const picks = data.picksAt(question, run, camera), place = picks ? picks.places[at] : null;
    if (place === null) return "";
    return `${place < 0 ? "dropped" : picks.ordered ? `pick ${place + 1} of ${picks.kept}` : "kept"} by ${data.names[run]}`;
  });
  const things = data.objectsAt(question, camera).filter(([x0, y0, x1, y1]) =>
    x0 < token.x + token.width && token.x < x1 && y0 < token.y + token.height && token.y < y1);
  const seen = new Set(things.map((thing) => thing[4] || "an object"));
  const place = `token ${at}, row ${token.row}, column ${token.column}${views > 1 ? `, view ${token.view}` : ""}`;
  const lines = [`${data.cameras[camera]} · ${place}`, fates.filter(Boolean).join(" · "), [...seen].join(" · ") || "no object"];
  return lines.join("\n");
}

// Returns an entry of the legend.
function swatch(colour, text, ground = "none") {
  const span = make("span"), square = span.appendChild(make("i"));
  square.style.borderColor = colour;
  square.style.background = ground;
  span.append(text);
  return span;
}

// Returns a question's row in the list: a button.
function listItem(question, outcome, names) {
  const item = make("li", "", `x-${outcome}`), button = item.appendChild(make("button"));
  button.type = "button";
  button.append(make("span", `${names[outcome].split(":")[0]}${question.kind ? ` · ${question.kind}` : ""}`, "x-mark x-text"),
    make("span", question.text.slice(0, 200), "x-text"));
  return item;
}

// Calls the action of a key that is pressed: key -> action. Arrows are those of the page outside the explorer.
function listenToKeys(root, actions) {
  document.addEventListener("keydown", (event) => {
    const isArrow = event.key.startsWith("Arrow"), takesKeys = isArrow ? "select, textarea, input" : "select, textarea";
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || event.target.matches(takesKeys)) return;
    if (!Object.hasOwn(actions, event.key) || (isArrow && !root.contains(event.target))) return;
    event.preventDefault();
    actions[event.key]();
  });
}
