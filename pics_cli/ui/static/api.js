// Requests to the server that this page came from; errors are its words.

const KEY = "pics-session";

export class Failed extends Error {}

async function send(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, { method, body });
  } catch {
    throw new Failed("error: the server does not answer\n\nhint: is pics ui still running? What is drawn here stays");
  }
  if (answer.ok) return answer.json();
  let text = "";
  try {
    text = (await answer.json()).error;
  } catch {
    text = `error: the server answered ${answer.status}`;
  }
  throw new Failed(text);
}

// A duplicated tab has a copy of the other's session storage: of two pages, one gets a session of its own.
async function isAlone(session) {
  if (!navigator.locks) return true;
  for (let attempt = 0; attempt < 4; attempt++) {
    const got = await new Promise((resolve) => {
      navigator.locks.request(`pics-${session}`, { ifAvailable: true }, (lock) => {
        resolve(Boolean(lock));
        return lock ? new Promise(() => {}) : undefined; // held as long as the page is there
      });
    });
    if (got) return true;
    await new Promise((resolve) => setTimeout(resolve, 100)); // a page that is being left gives it up in a moment
  }
  return false;
}

export class Api {
  static async open() {
    const api = new Api();
    api.page = await send("GET", "/api/page");
    api.session = sessionStorage.getItem(KEY);
    if (api.session && (await isAlone(api.session))) {
      try {
        api.state = await api.get("");
        return api;
      } catch {
        // the server was started anew
      }
    }
    api.session = (await send("POST", "/api/sessions")).session;
    sessionStorage.setItem(KEY, api.session);
    await isAlone(api.session);
    api.state = await api.get("");
    return api;
  }

  url(path) {
    return `/api/sessions/${this.session}${path}`;
  }

  get(path) {
    return send("GET", this.url(path));
  }

  put(path, body) {
    return send("PUT", this.url(path), body);
  }

  post(path, body) {
    return send("POST", this.url(path), body);
  }

  delete(path) {
    return send("DELETE", this.url(path));
  }

  upload(method, path, file) {
    return send(method, this.url(`${path}?name=${encodeURIComponent(file.name ?? "picture")}`), file);
  }
}
