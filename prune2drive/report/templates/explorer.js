// Lets a person choose a question and one or two runs, and shows which tokens were kept. All text is set as text.

function startExplorer(root) {
  const data = readData(root), questions = data.questions;
  const part = Object.fromEntries([...root.querySelectorAll("[data-is]")].map((found) => [found.dataset.is, found]));
  const state = { first: 0, second: Math.min(1, data.names.length - 1), view: "second", at: null, alone: null, marked: null };
  const tip = root.appendChild(make("div", "", "x-tip"));
  tip.hidden = true;
  const hint = part.token.textContent;
  let listed = [];

  const outcome = (question) => outcomeOf(question, state.first, state.second);
  const isPair = () => state.first !== state.second;
  const outcomes = () => (isPair() ? OUTCOMES : ALONE);
  const filters = filtersOf(part, data, outcome);

  const tokensAt = (camera) => data.tokensAt(state.at, camera), picksAt = (run, camera) => data.picksAt(state.at, run, camera);

  function photoAt(camera) {
    return data.photoAt(state.at, camera, (photo) => {
      root.style.setProperty("--shape", photo.naturalHeight / photo.naturalWidth);
      draw();
    });
  }

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
      count.textContent = words.replace(" tokens", "") + (data.hasPhoto(state.at, camera) ? "" : " · no photo here");
      canvas.setAttribute("aria-label", `${name}: ${words}`);
      drawCamera(canvas, photo, tokens, colouring(camera), {
        dim: part.dim.value / 100,
        tint: isOrdered ? 0.35 : state.view === "difference" ? 0.3 : 0,
        objects: part.objects.checked ? data.objectsAt(state.at, camera) : [],
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
    const isOrdered = cameras.some((_, camera) => picksAt(shownRun(), camera)?.ordered);
    part.order.disabled = !isOrdered || state.view === "difference";
    part.key.replaceChildren();
    if (state.view === "difference")
      part.key.append(swatch(COLOURS.first, `only first: ${data.names[state.first]}`),
        swatch(COLOURS.second, `only second: ${data.names[state.second]}`),
        swatch(COLOURS.both, "both", "#555"), swatch("transparent", "dim: neither"));
    else if (part.order.checked && isOrdered) {
      const ramp = make("i", "", "ramp"), span = make("span", "picked first");
      ramp.style.background = `linear-gradient(to right, ${RAMP.map((colour) => `rgb(${colour})`)})`;
      span.append(ramp, "last");
      part.key.append(span);
    } else part.key.append(swatch(COLOURS.kept, `kept by ${data.names[shownRun()]}`));
    if (part.objects.checked) part.key.append(swatch(COLOURS.object, "annotated object"));
  }

  function mark(marked, x = 0, y = 0) {
    state.marked = marked;
    tip.hidden = !marked;
    if (marked) {
      part.token.textContent = tip.textContent = describe(data, state.at, [state.first, state.second], marked.camera, marked.token);
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
      const [answer, score] = state.at.runs[run];
      if (answer !== null) say(data.names[run], answer, score === null ? "" : score >= 1 ? "good" : "bad");
    }
    for (const text of [part.question, ...part.answers.querySelectorAll("dd")])
      text.tabIndex = text.scrollHeight > text.clientHeight + 1 ? 0 : -1; // so that keys can scroll it
  }

  function choose(question) {
    state.at = question;
    state.marked = null;
    tip.hidden = true;
    part.token.textContent = hint;
    part.cameras.style.display = question ? "" : "none";
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
    remember();
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
    filters.count();
    listed = questions.filter((question) => filters.passes(question));
    listed.sort((one, other) => RANK.indexOf(outcome(one)) - RANK.indexOf(outcome(other)));
    part.count.textContent = `${listed.length.toLocaleString("en")} of ${questions.length.toLocaleString("en")} questions`;
    const rows = document.createDocumentFragment();
    for (const question of listed) {
      const item = rows.appendChild(listItem(question, outcome(question), outcomes()));
      item.firstChild.onclick = () => choose(question);
    }
    part.list.replaceChildren(rows);
    choose(listed.includes(state.at) ? state.at : listed[0] || null);
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
    remember();
    mark(state.marked && tip.hidden ? null : state.marked);
  }

  function takeRuns() {
    state.first = Number(part.first.value);
    state.second = Number(part.second.value);
    showViews();
    filters.offerAll(outcomes());
  }

  function compare() {
    takeRuns();
    list();
  }

  // Writes into the page's address what is shown, once a person has chosen something.
  function remember() {
    if (!state.chosen) return;
    writeAddress({
      sample: state.at?.id, first: data.names[state.first], second: data.names[state.second], view: state.view,
      answers: part.outcome.value, type: part.kind.value, camera: data.cameras[part.about.value],
    });
  }

  // Shows what an address asks for; runs that it does not name stay.
  function follow(hash) {
    const asked = readAddress(hash);
    if (!asked) return;
    for (const name of ["first", "second"])
      if (data.names.includes(asked[name])) part[name].value = data.names.indexOf(asked[name]);
    if (["first", "second", "difference"].includes(asked.view)) state.view = asked.view;
    state.at = questions.find(({ id }) => id === asked.sample) || null;
    takeRuns();
    pick(part.outcome, asked.answers);
    pick(part.kind, asked.type);
    pick(part.about, String(data.cameras.indexOf(asked.camera)));
    list();
    root.scrollIntoView();
  }

  const toggle = (box) => {
    if (!box.disabled) box.checked = !box.checked;
    box.onchange();
  };
  listenToKeys(root, {
    j: () => walk(1), ArrowDown: () => walk(1), k: () => walk(-1), ArrowUp: () => walk(-1),
    ArrowLeft: () => look({ difference: "second" }[state.view] || "first"),
    ArrowRight: () => look({ first: "second" }[state.view] || "difference"),
    d: () => look(state.view === "difference" ? "second" : "difference"),
    o: () => toggle(part.order), b: () => toggle(part.objects), Escape: () => alone(null),
    ...Object.fromEntries(cameras.slice(0, 9).map((_, camera) => [camera + 1, () => alone(state.alone === camera ? null : camera)])),
  });

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
  new ResizeObserver(draw).observe(part.cameras);
  compare();
  follow(location.hash);
  window.addEventListener("hashchange", (event) => follow(new URL(event.newURL).hash));
  state.chosen = true;
}
