// Lets a person choose a question and one or two runs, and shows which tokens were kept. All text is set as text.

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

function startExplorer(root) {
  const data = JSON.parse(root.querySelector(".x-data").textContent);
  const questions = data.questions.map(([id, frame, grid, kind, text, reference, about, runs]) => ({
    id, frame, grid, kind, text, reference, about, runs,
  }));
  const part = Object.fromEntries([...root.querySelectorAll("[data-is]")].map((found) => [found.dataset.is, found]));
  const state = { first: 0, second: data.names.length - 1, view: "second", at: null, alone: null, marked: null };
  const grids = new Map(), photos = new Map();
  const tip = root.appendChild(make("div", "", "x-tip"));
  tip.hidden = true;
  let listed = [];

  const isPair = () => state.first !== state.second;
  const oneOf = (run) => state.at.runs[run] || [null, null, null];

  function outcomeOf(question) {
    const [first, second] = [state.first, state.second].map((run) => (question.runs[run] || [])[1] ?? null);
    if (first === null || second === null) return "unscored";
    if (second !== first) return second < first ? "lost" : "gained";
    return second >= 1 ? "right" : "wrong";
  }

  function tokensAt(camera) {
    const key = `${state.at.grid}/${camera}`, grid = data.grids[state.at.grid][camera];
    if (!grids.has(key)) grids.set(key, grid ? tokensOf(grid) : []);
    return grids.get(key);
  }

  // Returns what a run kept of a camera; null where the run did not show the camera.
  function picksAt(run, camera) {
    const code = (data.picks[oneOf(run)[2]] || [])[camera] ?? null;
    return code === null ? null : picksOf(code, tokensAt(camera).length);
  }

  function photoAt(camera) {
    const number = data.frames[state.at.frame][0][camera];
    if (number < 0) return null;
    if (!photos.has(number)) {
      const photo = new Image();
      photo.onload = () => {
        root.style.setProperty("--shape", photo.naturalHeight / photo.naturalWidth);
        draw();
      };
      photo.src = `data:image/jpeg;base64,${data.photos[number]}`;
      photos.set(number, photo);
    }
    const photo = photos.get(number);
    return photo.complete && photo.naturalWidth ? photo : null;
  }

  const objectsAt = (camera) => data.frames[state.at.frame][1].filter(([place]) => place === camera);
  const shownRun = () => (state.view === "first" ? state.first : state.second);

  function colouring(camera) {
    const [first, second] = [picksAt(state.first, camera), picksAt(state.second, camera)];
    if (state.view === "difference" && first && second)
      return (at) => {
        const [before, after] = [first.places[at] >= 0, second.places[at] >= 0];
        return before && after ? COLOURS.both : before ? COLOURS.first : after ? COLOURS.second : null;
      };
    const picks = state.view === "first" ? first : second;
    if (!picks) return () => null;
    const colour = (place) => (part.order.checked && picks.ordered ? rampColour(place / Math.max(1, picks.kept - 1)) : COLOURS.kept);
    return (at) => (picks.places[at] < 0 ? null : colour(picks.places[at]));
  }

  const cameras = data.cameras.map((name, camera) => {
    const figure = make("figure", "", "x-camera"), caption = make("figcaption");
    const button = caption.appendChild(make("button", data.short[camera]));
    button.type = "button";
    button.title = "this camera alone, or all";
    button.onclick = () => alone(state.alone === camera ? null : camera);
    const count = caption.appendChild(make("span", "", "faint"));
    const canvas = make("canvas");
    canvas.setAttribute("role", "img");
    canvas.tabIndex = 0;
    figure.append(caption, canvas);
    canvas.onpointermove = canvas.onpointerdown = (event) => point(camera, event);
    canvas.onpointerleave = (event) => event.pointerType === "mouse" && mark(null);
    canvas.onkeydown = (event) => step(camera, event);
    part.cameras.append(figure);
    return { figure, canvas, count, name };
  });
  root.style.setProperty("--columns", data.columns);
  root.style.setProperty("--rows", Math.ceil(cameras.length / data.columns));

  function draw() {
    if (!state.at) return;
    const isOrdered = part.order.checked && state.view !== "difference";
    cameras.forEach(({ figure, canvas, count, name }, camera) => {
      const tokens = tokensAt(camera);
      figure.hidden = !tokens.length || (state.alone !== null && state.alone !== camera);
      if (figure.hidden) return;
      const words = countsOf(camera), photo = photoAt(camera);
      count.textContent = words.replace(" tokens", "") + (data.frames[state.at.frame][0][camera] < 0 ? " · no photo here" : "");
      canvas.setAttribute("aria-label", `${name}: ${words}`);
      drawCamera(canvas, photo, tokens, colouring(camera), {
        dim: part.dim.value / 100,
        tint: isOrdered ? 0.35 : state.view === "difference" ? 0.3 : 0,
        objects: part.objects.checked ? objectsAt(camera).map(([, ...box]) => box) : [],
        marked: state.marked && state.marked.camera === camera ? state.marked.token : null,
      });
    });
  }

  function countsOf(camera) {
    const [first, second] = [picksAt(state.first, camera), picksAt(state.second, camera)];
    if (state.view !== "difference") {
      const picks = state.view === "first" ? first : second;
      return picks ? `${picks.kept} of ${picks.places.length} tokens` : "not shown";
    }
    if (!first || !second) return "not shown by both";
    const only = (some, other) => some.places.filter((place, at) => place >= 0 && other.places[at] < 0).length;
    return `${only(first, second)} only first, ${only(second, first)} only second`;
  }

  function showKey() {
    const item = (colour, text) => {
      const span = make("span"), swatch = span.appendChild(make("i"));
      swatch.style.borderColor = colour;
      span.append(text);
      return span;
    };
    const isOrdered = cameras.some((_, camera) => picksAt(shownRun(), camera)?.ordered);
    part.order.disabled = !isOrdered || state.view === "difference";
    part.key.replaceChildren();
    if (state.view === "difference")
      part.key.append(item(COLOURS.first, `only ${data.names[state.first]}`), item(COLOURS.second, `only ${data.names[state.second]}`),
        item("var(--ink)", "both"), item("transparent", "dim: neither"));
    else if (part.order.checked && isOrdered) {
      const ramp = make("i", "", "ramp"), span = make("span", "picked first");
      ramp.style.background = `linear-gradient(to right, ${RAMP.map((colour) => `rgb(${colour})`)})`;
      span.append(ramp, "last");
      part.key.append(span);
    } else part.key.append(item(COLOURS.kept, `kept by ${data.names[shownRun()]}`));
    if (part.objects.checked) part.key.append(item(COLOURS.object, "annotated object"));
  }

  // Describes a token: its place, what each run did with it, and the objects that it touches.
  function describe(camera, at) {
    const token = tokensAt(camera)[at], views = data.grids[state.at.grid][camera][0].length;
    const fate = (run) => {
      const picks = picksAt(run, camera);
      if (!picks) return "";
      const place = picks.places[at];
      return `${place < 0 ? "dropped" : picks.ordered ? `pick ${place + 1} of ${picks.kept}` : "kept"} by ${data.names[run]}`;
    };
    const things = objectsAt(camera).filter(([, x0, y0, x1, y1]) =>
      x0 < token.x + token.width && token.x < x1 && y0 < token.y + token.height && token.y < y1);
    const seen = things.map((thing) => thing[5] || "an object");
    const place = `token ${at}, row ${token.row}, column ${token.column}${views > 1 ? `, view ${token.view}` : ""}`;
    const runs = [...new Set([state.first, state.second])].map(fate).filter(Boolean);
    return `${data.cameras[camera]} · ${place}\n${runs.join(" · ")}\n${seen.length ? [...new Set(seen)].join(" · ") : "no object"}`;
  }

  function mark(marked, x = 0, y = 0) {
    state.marked = marked;
    tip.hidden = !marked;
    if (marked) {
      part.token.textContent = tip.textContent = describe(marked.camera, marked.token);
      tip.style.left = `${Math.max(4, Math.min(x + 14, window.innerWidth - tip.offsetWidth - 8))}px`;
      tip.style.top = `${y + 18 + tip.offsetHeight > window.innerHeight ? y - tip.offsetHeight - 12 : y + 18}px`;
    }
    draw();
  }

  function point(camera, event) {
    const frame = cameras[camera].canvas.getBoundingClientRect();
    const x = (event.clientX - frame.left) / frame.width, y = (event.clientY - frame.top) / frame.height;
    const under = tokensAt(camera).map((token, at) => [token, at]).filter(([token]) =>
      token.x <= x && x < token.x + token.width && token.y <= y && y < token.y + token.height);
    under.sort(([one], [other]) => one.width * one.height - other.width * other.height); // the finest of several views
    mark(under.length ? { camera, token: under[0][1] } : null, event.clientX, event.clientY);
  }

  function step(camera, event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way || !event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    const tokens = tokensAt(camera), from = state.marked?.camera === camera ? tokens[state.marked.token] : null;
    const next = from ? tokens.findIndex((token) =>
      token.view === from.view && token.column === from.column + way[0] && token.row === from.row + way[1]) : 0;
    if (next < 0) return;
    const frame = cameras[camera].canvas.getBoundingClientRect(), token = tokens[next];
    mark({ camera, token: next }, frame.left + (token.x + token.width) * frame.width, frame.top + (token.y + token.height) * frame.height);
  }

  function alone(camera) {
    state.alone = camera;
    part.cameras.classList.toggle("alone", camera !== null);
    mark(null);
  }

  function showQuestion() {
    const say = (name, text, classes = "") => {
      const pair = part.answers.appendChild(make("div"));
      pair.append(make("dt", name, "x-text"), make("dd", text, `x-text ${classes}`));
    };
    part.question.className = "x-question x-text";
    part.question.textContent = state.at ? state.at.text : "No question is like this.";
    part.question.title = state.at ? state.at.id : "";
    part.answers.replaceChildren();
    if (!state.at) return;
    if (state.at.reference !== null) say("reference", state.at.reference);
    for (const run of new Set([state.first, state.second])) {
      const [answer, score] = oneOf(run);
      if (answer !== null) say(data.names[run], answer, score === null ? "" : score >= 1 ? "good" : "bad");
    }
    for (const text of [part.question, ...part.answers.querySelectorAll("dd")])
      text.tabIndex = text.scrollHeight > text.clientHeight + 1 ? 0 : -1; // so that keys can scroll it
  }

  function choose(question) {
    state.at = question;
    state.marked = null;
    tip.hidden = true;
    part.cameras.style.visibility = question ? "" : "hidden";
    for (const button of part.list.querySelectorAll("[aria-current]")) button.removeAttribute("aria-current");
    const place = listed.indexOf(question), button = part.list.children[place]?.firstChild;
    if (button) {
      button.setAttribute("aria-current", "true");
      const top = button.parentElement.offsetTop, bottom = top + button.offsetHeight;
      if (top < part.list.scrollTop || bottom > part.list.scrollTop + part.list.clientHeight) part.list.scrollTop = top - 40;
    }
    part.back.disabled = place <= 0;
    part.on.disabled = place < 0 || place >= listed.length - 1;
    showQuestion();
    if (!question) return part.key.replaceChildren();
    showKey();
    draw();
  }

  function walk(by) {
    const next = listed[listed.indexOf(state.at) + by];
    if (next) choose(next);
  }

  // Lists the questions that pass the filters; the chosen one stays where it can.
  function list() {
    const names = isPair() ? OUTCOMES : ALONE, about = part.about.value;
    listed = questions.filter((question) =>
      (!part.outcome.value || outcomeOf(question) === part.outcome.value) &&
      (!part.kind.value || question.kind === part.kind.value) && (!about || question.about.includes(Number(about))));
    listed.sort((one, other) => RANK.indexOf(outcomeOf(one)) - RANK.indexOf(outcomeOf(other)));
    part.count.textContent = `${listed.length.toLocaleString("en")} of ${questions.length.toLocaleString("en")} questions`;
    const rows = document.createDocumentFragment();
    for (const question of listed) {
      const outcome = outcomeOf(question), item = rows.appendChild(make("li", "", `x-${outcome}`)), button = item.appendChild(make("button"));
      button.type = "button";
      button.append(make("span", `${names[outcome].split(":")[0]}${question.kind ? ` · ${question.kind}` : ""}`, "x-mark x-text"),
        make("span", question.text.slice(0, 200), "x-text"));
      button.onclick = () => choose(question);
    }
    part.list.replaceChildren(rows);
    choose(listed.includes(state.at) ? state.at : listed[0] || null);
  }

  function fill(select, choices, value = "") {
    select.replaceChildren(...choices.map(([key, text]) => Object.assign(make("option", text), { value: key })));
    select.value = value;
  }

  // Offers only what occurs, with how often it does.
  function offer() {
    const names = isPair() ? OUTCOMES : ALONE;
    const choices = (all, counted) => [["", all], ...counted.filter(([, , count]) => count).map(([key, text, count]) => [key, `${text} (${count})`])];
    const count = (is) => questions.filter(is).length;
    const before = part.outcome.value;
    const found = RANK.map((key) => [key, names[key] || "", count((question) => outcomeOf(question) === key)]);
    fill(part.outcome, choices("all", found), found.some(([key, , many]) => key === before && many) ? before : "");
    if (part.kind.length) return;
    const kinds = [...new Set(questions.map((question) => question.kind))].filter(Boolean).sort();
    fill(part.kind, choices("all", kinds.map((kind) => [kind, kind, count((question) => question.kind === kind)])));
    fill(part.about, choices("any camera", data.cameras.map((name, camera) => [camera, name, count((question) => question.about.includes(camera))])));
    for (const select of [part.kind, part.about]) select.parentElement.hidden = select.length < 2;
  }

  function showViews() {
    const views = { first: data.names[state.first], second: data.names[state.second], difference: "difference" };
    part.views.querySelectorAll("label").forEach((label) => label.remove());
    part.views.hidden = !isPair();
    if (!isPair()) state.view = "second";
    for (const [view, name] of Object.entries(views)) {
      const label = part.views.appendChild(make("label")), radio = label.appendChild(make("input"));
      Object.assign(radio, { type: "radio", name: "x-view", value: view, checked: view === state.view });
      radio.onchange = () => look(view);
      label.append(name);
    }
  }

  function look(view) {
    if (!isPair()) return;
    state.view = view;
    part.views.querySelector(`[value=${view}]`).checked = true;
    if (state.at) showKey();
    mark(state.marked && tip.hidden ? null : state.marked);
  }

  function compare() {
    state.first = Number(part.first.value);
    state.second = Number(part.second.value);
    showViews();
    offer();
    list();
  }

  const toggle = (box) => {
    if (!box.disabled) box.checked = !box.checked;
    box.onchange();
  };
  const keys = {
    j: () => walk(1), ArrowDown: () => walk(1), k: () => walk(-1), ArrowUp: () => walk(-1),
    ArrowLeft: () => look({ difference: "second" }[state.view] || "first"),
    ArrowRight: () => look({ first: "second" }[state.view] || "difference"),
    d: () => look(state.view === "difference" ? "second" : "difference"),
    o: () => toggle(part.order), b: () => toggle(part.objects), Escape: () => alone(null),
  };

  function press(event) {
    const isArrow = event.key.startsWith("Arrow"), takesKeys = isArrow ? "select, textarea, input" : "select, textarea";
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || event.target.matches(takesKeys)) return;
    if (isArrow && !root.contains(event.target)) return; // elsewhere they scroll the page
    const digit = Number(event.key) - 1;
    const action = keys[event.key] || (cameras[digit] && (() => alone(state.alone === digit ? null : digit)));
    if (!action) return;
    event.preventDefault();
    action();
  }

  const runs = data.names.map((name, run) => [run, name]);
  fill(part.first, runs, state.first);
  fill(part.second, runs, state.second);
  part.first.parentElement.hidden = part.second.parentElement.hidden = data.names.length < 3;
  part.first.onchange = part.second.onchange = compare;
  part.outcome.onchange = part.kind.onchange = part.about.onchange = list;
  part.order.onchange = part.objects.onchange = () => {
    showKey();
    draw();
  };
  part.dim.oninput = draw;
  part.back.onclick = () => walk(-1);
  part.on.onclick = () => walk(1);
  root.querySelector("form").onsubmit = (event) => event.preventDefault();
  document.addEventListener("keydown", press);
  new ResizeObserver(draw).observe(part.cameras);
  compare();
}
