// What the console does without loading a page anew. Pages are whole without it.
"use strict";

(() => {
  // Elements with data-refresh="SECONDS" and an id are kept as the page has them now, unless they are paused, nobody sees
  // the page, or somebody is in them with the keyboard. What was open stays open.
  const refresh = async (element) => {
    if (document.hidden || element.contains(document.activeElement) || element.dataset.paused !== undefined) return;
    const answer = await fetch(location.href, { headers: { "X-Requested-With": "refresh" } });
    if (answer.status === 401) location.reload();
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById(element.id);
    if (!fresh || element.contains(document.activeElement)) return;
    for (const open of element.querySelectorAll("details[open][id]")) {
      const same = fresh.querySelector("#" + CSS.escape(open.id));
      if (same) same.open = true;
    }
    // How long ago something was is nothing to read out over and over.
    const lasting = (e) => e.innerHTML.replace(/<span class="ago">[^<]*<\/span>/g, "");
    const compare = element.closest("[aria-live]") ? lasting : (e) => e.innerHTML;
    if (compare(fresh) !== compare(element)) element.replaceChildren(...fresh.childNodes);
    return fresh.dataset.refresh === undefined; // nothing more will change
  };
  for (const element of document.querySelectorAll("[data-refresh][id]")) {
    const wait = Number(element.dataset.refresh) * 1000;
    const loop = async () => {
      try {
        const over = await refresh(element);
        element.classList.remove("stale");
        if (over) return;
      } catch {
        element.classList.add("stale"); // the console itself is away
      }
      setTimeout(loop, wait);
    };
    setTimeout(loop, wait);
  }
  for (const button of document.querySelectorAll("button[data-pause]")) {
    const element = document.getElementById(button.dataset.pause);
    if (!element) continue;
    button.hidden = false;
    button.addEventListener("click", () => {
      const paused = element.toggleAttribute("data-paused");
      button.setAttribute("aria-pressed", String(paused));
      button.textContent = paused ? "Go on" : "Pause";
    });
  }

  // A form is sent once, however often one clicks.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent !== undefined) { event.preventDefault(); return; }
    if (form.method === "post" && form.dataset.again === undefined) form.dataset.sent = ""; // what is answered with a file leaves the page as it is
  });
  addEventListener("pageshow", () => { for (const form of document.forms) delete form.dataset.sent; });

  // Keys: "/" goes to the first search field, "g" and a letter to a section. They can be turned off in the settings.
  const off = "iotdm-console-no-keys";
  const toggle = document.querySelector("[data-keys]");
  if (toggle) {
    toggle.closest("[hidden]").hidden = false;
    toggle.checked = !localStorage.getItem(off);
    toggle.addEventListener("change", () => toggle.checked ? localStorage.removeItem(off) : localStorage.setItem(off, "1"));
  }
  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (localStorage.getItem(off) || event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, textarea, [contenteditable]")) return;
    const before = going;
    going = 0;
    if (event.key === "/") {
      const field = document.querySelector("[data-search], input[type=search]");
      if (field) { event.preventDefault(); field.focus(); field.select(); }
    } else if (event.key === "g") {
      going = event.timeStamp;
    } else if (before && event.timeStamp - before < 2000) {
      const link = [...document.querySelectorAll("nav a[data-key]")].find((a) => a.dataset.key === event.key);
      if (link) { event.preventDefault(); link.click(); }
    }
  });

  // Times say in their titles what they are here.
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  document.addEventListener("mouseover", (event) => {
    const time = event.target.closest?.("time[datetime]");
    if (time) time.title = local.format(new Date(time.dateTime)) + " here";
  });
})();

// What comes live: events, and changes of a twin.
(() => {
  // follow calls heard with the data of each event of a stream, and keeps the words of its bar true. While paused, events
  // wait, up to most of them.
  const follow = (url, bar, heard, extra = {}) => {
    const state = bar.querySelector("[data-live-state]");
    const button = bar.querySelector("[data-live-pause]");
    const most = 500;
    let source, last = "", paused = false, waiting = [], words = ["busy", "connecting"];
    const show = () => {
      const [kind, text] = paused ? ["off", waiting.length ? `paused, ${waiting.length === most ? most + " or more" : waiting.length} waiting` : "paused"] : words;
      state.className = "state " + kind;
      if (state.textContent !== text) state.textContent = text;
    };
    const connect = () => {
      source = new EventSource(last ? url + (url.includes("?") ? "&" : "?") + "after=" + last : url);
      source.onmessage = (message) => {
        last = message.lastEventId || last;
        const data = JSON.parse(message.data);
        if (!paused) return heard(data);
        waiting.push(data);
        if (waiting.length > most) waiting.shift();
        show();
      };
      source.addEventListener("status", (message) => {
        const status = JSON.parse(message.data);
        words = status.on ? ["on", "live"] : ["stop", status.problem || "connecting"];
        show();
        if (status.on && extra.begun) extra.begun();
      });
      source.addEventListener("lost", (message) => extra.lost && extra.lost(Number(message.data)));
      source.onerror = () => {
        if (document.hidden) return;
        words = ["stop", "the connection is lost, trying again"];
        show();
        if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
      };
    };
    button.addEventListener("click", () => {
      paused = !paused;
      button.setAttribute("aria-pressed", String(paused));
      if (!paused) waiting.splice(0).forEach(heard);
      show();
    });
    // A page that nobody sees does not hold one of the few connections that browsers have for a site.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) source.close();
      else if (source.readyState === EventSource.CLOSED) connect();
    });
    addEventListener("pagehide", () => source.close());
    addEventListener("pageshow", (event) => event.persisted && connect());
    bar.hidden = false;
    show();
    connect();
  };

  const make = (name, text, kind) => {
    const element = document.createElement(name);
    if (text) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const load = async () => {
    const answer = await fetch(location.href, { headers: { "X-Requested-With": "refresh" } });
    return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
  };

  for (const bar of document.querySelectorAll("[data-twin-live]")) {
    const list = bar.querySelector("[data-live-list]");
    const most = 100;
    let timer;
    const value = (text) => (text.length > 300 ? text.slice(0, 300) + " …" : text);
    const refresh = async (paths) => {
      const page = await load();
      if (!page) return;
      for (const old of document.querySelectorAll("[data-live-fragment][id]")) {
        const fresh = page.getElementById(old.id);
        if (fresh && !old.contains(document.activeElement)) old.replaceChildren(...fresh.childNodes);
      }
      for (const path of paths) {
        const row = document.querySelector(`tr[data-path="${CSS.escape(path)}"]`);
        if (row) row.classList.add("fresh");
      }
    };
    let paths = [];
    follow(bar.dataset.twinLive, bar, (change) => {
      if (!change.changes || (!change.changes.length && !change.what)) return;
      const item = make("li");
      item.append(make("span", change.at + (change.by ? ", " + change.by : "") + ": ", "soft"));
      if (change.what) item.append(make("strong", change.what + " "));
      for (const one of change.changes) {
        paths.push(one.path);
        const line = make("span", "", "change");
        line.append(make("code", one.path), " ", one.old ? make("del", value(one.old)) : make("span", "nothing", "none"), " → ",
          one.new ? make("ins", value(one.new)) : make("span", "nothing", "none"), " ");
        item.append(line);
      }
      list.prepend(item);
      while (list.children.length > most) list.lastChild.remove();
      clearTimeout(timer);
      timer = setTimeout(() => refresh(paths.splice(0)).catch(() => {}), 300);
    });
  }

  for (const table of document.querySelectorAll("[data-events-live]")) {
    const body = table.tBodies[0];
    const bar = document.querySelector("[data-events-bar]");
    const lost = document.querySelector("[data-events-lost]");
    const most = 500;
    let missed = 0;
    const known = (key) => [...body.rows].some((row) => row.dataset.key === key);
    const add = (row) => {
      if (!row || known(row.dataset.key)) return;
      body.prepend(document.importNode(row, true));
      while (body.rows.length > most) body.lastElementChild.remove();
      document.querySelector("[data-events-none]")?.remove();
    };
    const rowOf = (text) => new DOMParser().parseFromString("<table><tbody>" + text + "</tbody></table>", "text/html").querySelector("tr");
    follow(table.dataset.eventsLive, bar, (event) => add(rowOf(event.html)), {
      // What came between the page and the stream.
      begun: async () => {
        const page = await load().catch(() => null);
        if (page) [...page.querySelectorAll("#events > tr")].reverse().forEach(add);
      },
      lost: (n) => { missed += n; lost.textContent = `${missed} left out: they came faster than this page takes them`; },
    });
    document.querySelector("[data-events-clear]").addEventListener("click", () => body.replaceChildren());
  }

  // What can be copied, and forms that take their time.
  for (const button of document.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
  for (const form of document.querySelectorAll("form[data-busy]")) {
    form.addEventListener("submit", () => { form.querySelector("[data-busy-state]").textContent = form.dataset.busy + " …"; });
  }
})();

// Lists of devices: tick all of a page, see how many are ticked. Queries: Ctrl+Enter runs them.
(() => {
  const place = document.querySelector("[data-select-all]");
  const form = place?.closest("form");
  if (form) {
    const boxes = [...form.querySelectorAll("tbody input[name=id]")];
    const all = Object.assign(document.createElement("input"), { type: "checkbox" });
    all.setAttribute("aria-label", "Select all devices of this page");
    place.replaceChildren(all);
    const button = form.querySelector("button[data-selected]");
    const count = () => {
      const n = boxes.filter((box) => box.checked).length;
      all.checked = n > 0 && n === boxes.length;
      all.indeterminate = n > 0 && n < boxes.length;
      button.disabled = n === 0;
      button.textContent = n === 0 ? "With the selected devices…" : `With ${n} selected ${n === 1 ? "device" : "devices"}…`;
    };
    let last = -1; // Shift selects what is between
    form.addEventListener("click", (event) => {
      const at = boxes.indexOf(event.target);
      if (at < 0) return;
      if (event.shiftKey && last >= 0) for (const box of boxes.slice(Math.min(at, last), Math.max(at, last))) box.checked = boxes[at].checked;
      last = at;
      count();
    });
    all.addEventListener("change", () => { for (const box of boxes) box.checked = all.checked; count(); });
    addEventListener("pageshow", count);
    count();
  }
  for (const field of document.querySelectorAll("textarea[data-submit]")) {
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); field.form.requestSubmit(); }
    });
  }
  // What is empty is left out of the address.
  for (const form of document.querySelectorAll("form[data-tidy]")) {
    form.addEventListener("submit", () => {
      for (const field of form.elements) {
        const term = field.closest(".term");
        if (term ? !term.querySelector("[name=path]").value : !field.value && field.name) field.disabled = true;
      }
    });
    addEventListener("pageshow", () => { for (const field of form.elements) field.disabled = false; });
  }
})();
