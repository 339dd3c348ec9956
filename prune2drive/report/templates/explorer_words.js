// Says in words what the explorer shows.
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
  select.replaceChildren(...choices.map(([key, text]) => Object.assign(make("option", text), { value: key })));
  select.value = value;
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
