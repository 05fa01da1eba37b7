// The state is the fragment of the address, #q=web&service=tcp/22&direction=ingress&node=group:web, so that what is seen
// can be sent to others.  Everything that is shown comes from the picture, and only as text.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const svg = document.querySelector("#picture > svg");
  const whole = svg.getAttribute("viewBox");
  const arrows = [...svg.querySelectorAll(".arrow")];
  const nodes = [...svg.querySelectorAll(".node")];
  const fields = { q: byId("q"), service: byId("service"), direction: byId("direction"), action: byId("action") };
  const titleOf = (element) => element.querySelector("title").textContent;
  const names = new Map(nodes.map((node) => [node.dataset.node, node.dataset.name]));
  let chosen = "";

  // Whether a rule for a service says something about the service that is asked for: tcp/443 is in tcp/400-500, in tcp
  // and in anything.
  function covers(service, asked) {
    const [protocol, ports] = service.replace(" (IPv6)", "").split(" ")[0].split(/\/(.*)/);
    const [wanted, port] = asked.split(/\/(.*)/);
    if (protocol === "anything" || service.toLowerCase().includes(asked)) return true;
    if (protocol !== wanted) return false;
    if (!port || !ports) return true;
    const [first, last = first] = ports.split("-").map(Number);
    const [low, high = low] = port.split("-").map(Number);
    return low <= last && high >= first;
  }

  function isWanted(arrow, asked) {
    const { from, to, direction, services } = arrow.dataset;
    const ends = [from, to].map((id) => `${names.get(id)} ${id}`.toLowerCase());
    return (!asked.q || ends.some((text) => text.includes(asked.q)))
      && (!asked.service || services.split("|").some((service) => covers(service, asked.service)))
      && (!asked.direction || direction === asked.direction)
      && (!asked.action || arrow.classList.contains(asked.action))
      && (!chosen || from === chosen || to === chosen);
  }

  function show() {
    const asked = Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, field.value.trim().toLowerCase()]));
    const filtered = chosen !== "" || Object.values(asked).some(Boolean);
    const wanted = arrows.filter((arrow) => isWanted(arrow, asked));
    const near = new Set(wanted.flatMap((arrow) => [arrow.dataset.from, arrow.dataset.to]));
    const named = (node) => asked.q !== "" && !chosen
      && `${node.dataset.name} ${node.dataset.node}`.toLowerCase().includes(asked.q);
    const seen = nodes.filter((node) => !filtered || near.has(node.dataset.node) || node.dataset.node === chosen
      || named(node));
    for (const element of [...arrows, ...nodes]) element.classList.add("off");
    for (const element of [...wanted, ...seen]) element.classList.remove("off");
    for (const node of nodes) node.classList.toggle("chosen", node.dataset.node === chosen);
    const count = (elements, key) => new Set(elements.map((element) => element.dataset[key])).size;
    byId("count").textContent = `${count(seen, "node")} of ${count(nodes, "node")} nodes, `
      + `${wanted.length} of ${arrows.length} arrows`;
    frame(filtered ? [...wanted, ...seen] : []);
    list(wanted);
  }

  // Bring what is left into view.
  function frame(elements) {
    const boxes = elements.map((element) => element.getBBox()).filter((box) => box.width);
    const room = byId("picture");
    if (!boxes.length) {
      // All of it, if it can be read then; or else there are scroll bars.
      room.classList.toggle("fit", svg.width.baseVal.value <= room.clientWidth * 1.7 && svg.height.baseVal.value <= room.clientHeight * 1.7);
      svg.setAttribute("viewBox", whole);
      return;
    }
    room.classList.add("fit");
    const left = Math.min(...boxes.map((box) => box.x)) - 20;
    const top = Math.min(...boxes.map((box) => box.y)) - 20;
    const right = Math.max(...boxes.map((box) => box.x + box.width)) + 20;
    const bottom = Math.max(...boxes.map((box) => box.y + box.height)) + 20;
    // Never larger than life.
    const width = Math.max(right - left, room.clientWidth);
    const height = Math.max(bottom - top, room.clientHeight);
    svg.setAttribute("viewBox", `${left} ${top} ${width} ${height}`);
  }

  function list(wanted) {
    const node = nodes.find((each) => each.dataset.node === chosen);
    byId("name").textContent = node ? node.dataset.name : "Rules";
    byId("about").textContent = node ? titleOf(node) : "Click a node to see only its neighbours; again, or Escape, for all.";
    byId("rules").replaceChildren(...wanted.flatMap((arrow) => titleOf(arrow).split("\n")).map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }));
  }

  function read() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const [key, field] of Object.entries(fields)) field.value = state.get(key) ?? "";
    chosen = names.has(state.get("node")) ? state.get("node") : "";
    show();
  }

  function write() {
    const state = new URLSearchParams();
    for (const [key, field] of Object.entries(fields)) if (field.value) state.set(key, field.value);
    if (chosen) state.set("node", chosen);
    history.replaceState(null, "", `#${state}`);
    show();
  }

  function choose(id) {
    chosen = chosen === id ? "" : id;
    write();
  }

  for (const field of Object.values(fields)) field.addEventListener("input", write);
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  byId("all").addEventListener("click", () => {
    for (const field of Object.values(fields)) field.value = "";
    choose(chosen);
  });
  for (const node of nodes) {
    node.setAttribute("tabindex", "0");
    node.setAttribute("role", "button");
    node.addEventListener("click", () => choose(node.dataset.node));
    node.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(node.dataset.node); });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && chosen) choose(chosen); });
  addEventListener("hashchange", read);
  read();
})();
